"""Measure the reference models; write their card, and the laws and plan that ship.

    python scripts/measure_reference.py [--workspace FOLDER] [--threads 2]

Resumable: a run that was killed continues, and repeats nothing. Takes about half an hour
on two CPU cores. Writes data/reference/{README.md, laws.json, plan.json}.
"""

# ruff: noqa: E501  (the card's sentences are long lines)

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd

from planner.api import Planner
from planner.calibration.draws import tabulate
from planner.calibration.environment import describe_machine
from planner.calibration.fit import fit_laws
from planner.calibration.latency import time_engine
from planner.calibration.reference.tasks import TASKS
from planner.calibration.sampling import sample
from planner.calibration.store import Store
from planner.calibration.suites import reference_problems
from planner.cli_console import progress
from planner.cli_demo import default_budget
from planner.config import reference_targets
from planner.data import REFERENCE
from planner.engines import open_engine
from planner.engines.embedded import EmbeddedScorer
from planner.models.coverage import pass_at_k
from planner.models.files import write_atomic
from planner.models.records import Problem
from planner.models.voting import vote_curves
from planner.planning import make_plan

SEED = 1_000_000  # apart from the seeds that demos use
VERIFIER = REFERENCE / "tiny-verifier"
CARD_LEVELS = {
    "chain": dict.fromkeys((1, 2, 4, 6, 8, 10), 10),
    "countdown": dict.fromkeys(range(2, 7), 10),
    "retry": dict.fromkeys(range(2, 7), 10),
}
CARD_DRAWS = 256
LAW_PROBLEMS = 120  # a task, for the shipped laws
LAW_DRAWS = 16
LAW_TEMPERATURES = (0.6, 1.0)
PLAN_PROMPTS = 1000
MAX_TOKENS = 144
_LOSSLESS = 1.0  # vote confidence: never stops while the outcome is open


def measure(
    store: Store, problems: tuple[Problem, ...], draws: int, temperatures: tuple[float, ...]
) -> None:
    """Draw what the store lacks, of every model; time its steps."""
    machine = describe_machine()
    store.append_machine(machine)
    scorer = EmbeddedScorer(VERIFIER).score
    for target in reference_targets():
        engine = open_engine(target)
        with progress(f"{target.name}: draws") as update:
            sample(
                store, engine, problems, n_samples=draws, temperatures=temperatures,
                max_tokens=MAX_TOKENS, top_p=1.0, seed=SEED, machine=machine.machine,
                scorer=scorer, progress=update,
            )  # fmt: skip
        assert target.architecture is not None
        with progress(f"{target.name}: step times") as update:
            time_engine(
                store, engine, target.architecture, machine.machine, progress=update
            )
        engine.close()


def card_rows(samples: pd.DataFrame, problems: tuple[Problem, ...]) -> pd.DataFrame:
    """pass@1, pass@16, pass@256 and maj@16 of every model, task and level."""
    models = [target.name for target in reference_targets()]
    rng = np.random.default_rng(SEED)
    rows = []
    for table in tabulate(samples, models, problems):
        drawn = table.recorded
        coverage = pass_at_k(drawn.n_correct, drawn.n_samples, [1, 16, CARD_DRAWS])
        majority = vote_curves(drawn, (1, 16), _LOSSLESS, rng).accuracy[:, 1]
        for i, index in enumerate(table.problem.tolist()):
            level = int(problems[index].problem_id.split("-")[1])
            rows.append((table.task, level, table.model, *coverage[i], majority[i]))
    columns = [
        "task",
        "level",
        "model",
        "pass@1",
        "pass@16",
        f"pass@{CARD_DRAWS}",
        "maj@16",
    ]
    return pd.DataFrame(rows, columns=columns)


def write_card(rows: pd.DataFrame, n_problems: int) -> None:
    """Write the model card from the figures and the training logs."""
    logs = {
        f.parent.name: json.loads(f.read_text())
        for f in sorted(REFERENCE.glob("*/training.json"))
    }
    verifier = logs.pop("tiny-verifier")
    lines = [
        "# Reference models", "",
        "Tiny Llama-architecture models, trained from scratch on verifiable tasks, so that"
        " everything can be tried with no GPU, no download and no account. Character tokens,"
        " fp16 safetensors in Hugging Face format. Not good for anything else. Apache-2.0,"
        " like the code; no third-party data went into them.", "",
        "Made by `python -m planner.calibration.reference.train`, `... .train_verifier` and"
        " `scripts/measure_reference.py`; the logs are the `training.json` beside each"
        " model's weights. One training seed each.", "",
        "| model | parameters | tokens | steps | CPU s | nats: chain | countdown | retry |",
        "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name in (target.name for target in reference_targets()):
        log = logs[name]
        last = log["log"][-1]["validation_nats"]
        lines.append(
            f"| {name} | {log['parameters']:,} | {log['tokens']:,} | {log['step']:,} |"
            f" {log['cpu_s']:,.0f} | {last['chain']:.3f} | {last['countdown']:.3f} |"
            f" {last['retry']:.3f} |"
        )
    lines += [
        "", "Nats are of the target tokens of sequences that training never saw.", "",
        "## Tasks", "",
        "- **chain** `A037+8*4-21:` -> `037+8=045;045*4=180;180-21=159`, modulo 1000,"
        " graded with its scratchpad. Level: steps. One step in 25 multiplies by two digits.",
        "- **countdown** `C3,7,12>24:` -> one attempt, checked exactly. Level: numbers.",
        "- **retry** `R3,7,12>24:` -> attempts split by `|`; `!` claims success; the last"
        " attempt counts. Level: numbers.", "",
        "One problem key in eight is held out of training; every problem measured is one.", "",
        "## Accuracy, measured", "",
        f"{n_problems} held-out problems (10 a level), {CARD_DRAWS} draws each, temperature"
        f" 1, at most {MAX_TOKENS} tokens, embedded engine. pass@k is the unbiased estimator"
        " (arXiv:2107.03374); a level's standard error is up to 16 points.", "",
    ]  # fmt: skip
    for task in TASKS:
        lines += [f"### {task}", "", "| level | model | pass@1 | pass@16 | pass@256 | maj@16 |",
                  "|---|---|---|---|---|---|"]  # fmt: skip
        own = rows[rows["task"] == task]
        figures = ["pass@1", "pass@16", f"pass@{CARD_DRAWS}", "maj@16"]
        means = own.groupby(["level", "model"], sort=False)[figures].mean().reset_index()
        means = means.sort_values("level", kind="stable")
        lines += [_row(str(r.level), r) for r in means.itertuples(index=False)]
        whole = own.groupby("model", sort=False)[figures].mean().reset_index()
        lines += [_row("all", r) for r in whole.itertuples(index=False)]
        lines.append("")
    lines += _spread(rows)
    lines += [
        "## Verifier", "",
        f"`tiny-verifier` is {verifier['base']} with a scalar head, trained on"
        f" {verifier['samples']:,} graded draws of the four models, on problems that are"
        " never measured. Its judgement on held-out draws is imperfect, and pooled figures"
        " flatter it: only the within-problem area helps to pick a better draw.", "",
        "| task | AUC, pooled | AUC within a problem | share correct |", "|---|---|---|---|",
    ]  # fmt: skip
    for task, held in verifier["held_out"].items():
        lines.append(
            f"| {task} | {held['pooled_auc']:.3f} | {held['within_problem_auc']:.3f} |"
            f" {held['share_correct']:.3f} |"
        )
    write_atomic(REFERENCE / "README.md", "\n".join(lines) + "\n")


def _row(level: str, row: object) -> str:
    name, *figures = list(row)[-5:]  # type: ignore[call-overload]
    return f"| {level} | {name} | " + " | ".join(f"{value:.3f}" for value in figures) + " |"


def _spread(rows: pd.DataFrame) -> list[str]:
    lines = [
        "## Difficulty", "", "Quantiles over the problems of each model's pass@1.", "",
        "| model | 0 % | 10 % | 25 % | 50 % | 75 % | 90 % | 100 % | share below 0.01 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for model, own in rows.groupby("model", sort=False):
        cuts = np.quantile(own["pass@1"], [0, 0.1, 0.25, 0.5, 0.75, 0.9, 1])
        rare = float((own["pass@1"] < 0.01).mean())
        lines.append(
            f"| {model} | " + " | ".join(f"{c:.3f}" for c in cuts) + f" | {rare:.2f} |"
        )
    return [*lines, ""]


def main() -> None:
    """Measure, then write the three files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workspace", type=Path, default=Path("reference-measurements"))
    args = parser.parse_args()
    card = reference_problems(SEED, CARD_LEVELS)
    law = reference_problems(
        SEED + 1, dict.fromkeys(TASKS, LAW_PROBLEMS), exclude={p.prompt for p in card}
    )
    store = Store(args.workspace / "law")
    measure(store, law, LAW_DRAWS, LAW_TEMPERATURES)
    laws = fit_laws(store, targets=reference_targets(), problems=law, seed=SEED)
    laws.save(REFERENCE / "laws.json")
    planner = Planner(laws=laws, targets=reference_targets())
    fresh = law  # the mix that the plan is for
    each = default_budget(planner, fresh)
    budget = type(each)(each.total / len(fresh) * PLAN_PROMPTS, each.unit)
    plan = make_plan(laws, budget=budget, n_prompts=PLAN_PROMPTS, seed=SEED)
    plan.save(REFERENCE / "plan.json")
    store = Store(args.workspace / "card")
    measure(store, card, CARD_DRAWS, (1.0,))
    write_card(card_rows(store.samples(), card), len(card))


if __name__ == "__main__":
    main()
