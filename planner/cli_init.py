"""What `planner init` writes: a commented config and example problems."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

from planner.config import SamplingConfig, Workspace, reference_targets
from planner.data import REFERENCE
from planner.models.errors import InputError
from planner.models.files import write_atomic
from planner.models.specs import ModelTarget

TEMPLATE = """\
# inferplan workspace: which models may answer, and on what to measure them.
# Next: planner calibrate, planner fit, planner plan, planner run, planner report.

models:                        # one entry a candidate; the planner picks among them
  - name: small                # what plans and reports call it; your choice
    engine: openai             # any OpenAI-compatible server, e.g. vLLM, llama.cpp
    location: http://localhost:8000/v1     # base URL
    served_name: my-org/small-model        # the server's name for it; default: name
    # api_key_env: MY_KEY                  # variable that holds the key, never the key
    # chat: true                           # /chat/completions instead of /completions
    # architecture: small/config.json      # Hugging Face config: adds FLOP, bytes, seconds
    prices:                                # leave out what is not priced
      input_usd_per_mtok: 0.10             # USD for a million tokens
      output_usd_per_mtok: 0.40
      source: "example figures; put your price list and its date here"
  - name: large
    engine: openai
    location: http://localhost:8001/v1
    served_name: my-org/large-model
    prices:
      input_usd_per_mtok: 1.00
      output_usd_per_mtok: 4.00
      source: "example figures; put your price list and its date here"
  # - name: local              # a model from disk, no server
  #   engine: transformers     # embedded | transformers | vllm: a Hugging Face folder
  #   location: path/to/model  # relative to this file

problems: problems.jsonl       # one JSON object a line:
                               #   prompt     sent as it is
                               #   task       problems of one task share their laws
                               #   verifier   exact | numeric | chain | countdown
                               #   reference  right answer, where the verifier needs one
                               # aim at 100 problems a task, like the prompts to come

budget: "5 usd"                # for `planner plan`; tokens, s, usd, flop, bytes or eflop

sampling:
  n_samples: 16                # draws a problem, model and temperature; more is better
  temperatures: [0.6, 1.0]
  max_tokens: 512              # longest answer; a draw that goes on past it counts as wrong
  top_p: 1.0
  seed: 0

# scorer: path/to/verifier     # scalar-head Llama verifier: adds scored best-of-N
"""

_REFERENCE = """\
# The reference workload: the tiny models that came with inferplan, and their tasks.
# Next: planner calibrate, planner fit, planner plan --budget "2e10 eflop", planner run.

models:
{models}
problems: problems.jsonl       # one JSON object a line

# budget: "2e10 eflop"         # FLOP plus bytes moved times the machine's intensity

sampling:
  n_samples: {n_samples}                # draws a problem, model and temperature
  temperatures: {temperatures}
  max_tokens: {max_tokens}              # with the prompt: what the models were trained on
  top_p: {top_p}
  seed: {seed}
{scorer}"""

# as much as `planner demo` measures, twice over
_SAMPLING = SamplingConfig(n_samples=32, temperatures=(0.6, 1.0), max_tokens=144)
_EXAMPLES = (
    {
        "task": "arithmetic",
        "prompt": "Compute 17 * 23. End with the number.",
        "verifier": "numeric",
        "reference": "391",
    },
    {
        "task": "arithmetic",
        "prompt": "Compute 1024 - 377. End with the number.",
        "verifier": "numeric",
        "reference": "647",
    },
    {
        "task": "capitals",
        "prompt": "What is the capital of Peru? Answer with its name only.",
        "verifier": "exact",
        "reference": "Lima",
    },
)


def write_workspace(folder: Path, *, reference: bool) -> Workspace:
    """Write config.yaml and problems.jsonl; nothing that exists is touched.

    Args:
        folder: Where to; made if missing.
        reference: For the reference models, and problems of their tasks.

    Raises:
        InputError: One of the files exists, or the reference models are not installed.
        StoreError: The folder cannot be written.
    """
    workspace = Workspace(folder)
    files = {
        folder / "problems.jsonl": _reference_problems()
        if reference
        else _lines(_EXAMPLES),
        workspace.config_file: reference_config(_SAMPLING) if reference else TEMPLATE,
    }
    for path in files:
        if path.exists():
            raise InputError(
                f"{path}: exists; choose another folder, or move it away first"
            )
    for path, content in files.items():
        write_atomic(path, content)
    return workspace


def reference_config(sampling: SamplingConfig) -> str:
    """A config of the reference models.

    Args:
        sampling: How much to measure.

    Raises:
        InputError: The reference models are not installed.
    """
    targets = reference_targets()
    if not targets:
        raise InputError(f"{REFERENCE}: no reference models; install inferplan again")
    models = "".join(map(_reference_model, targets))
    folder = REFERENCE / "tiny-verifier"
    scorer = f"\nscorer: {json.dumps(str(folder))}\n" if folder.is_dir() else ""
    return _REFERENCE.format(
        models=models,
        scorer=scorer,
        n_samples=sampling.n_samples,
        temperatures=list(sampling.temperatures),
        max_tokens=sampling.max_tokens,
        top_p=sampling.top_p,
        seed=sampling.seed,
    )


def _reference_model(target: ModelTarget) -> str:
    lines = [
        f"  - name: {target.name}", "    engine: embedded",
        f"    location: {json.dumps(target.location)}",
    ]  # fmt: skip
    if (prices := target.prices) is not None:
        lines += [
            "    prices:",
            f"      input_usd_per_mtok: {prices.usd_per_input_token * 1e6:.4f}",
            f"      output_usd_per_mtok: {prices.usd_per_output_token * 1e6:.4f}",
            f"      source: {json.dumps(prices.source)}",
        ]
    return "\n".join(lines) + "\n"


def _reference_problems() -> str:
    from planner.calibration.suites import reference_problems

    problems = reference_problems(0, {"chain": 80, "countdown": 80, "retry": 80})
    return _lines(asdict(problem) for problem in problems)


def _lines(rows: Iterable[Mapping[str, str]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)
