"""Output tokens per second of the embedded engine, beside transformers if installed.

    python benchmarks/engine_throughput.py [FOLDER ...] [--draws 4] [--threads N]

Each figure is of draws of problems of the reference workload, batch draws at a time, with
their real ends: a batch that thins out as draws end counts as it is. Both engines draw the
same problems in the same run. "per CPU-s" divides by the processor time of all threads,
which is what to compare on a machine that is busy with other work.
"""

import argparse
import importlib.util
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from planner.calibration.reference.tasks import problems
from planner.data import REFERENCE
from planner.engines.base import Request, draw_all
from planner.engines.embedded import EmbeddedEngine
from planner.models.errors import InputError

BATCHES = (1, 64, 256)
MAX_TOKENS = 128
_SEED = 1


class Rate(NamedTuple):
    """Output tokens per second."""

    wall: float
    processor: float


def measured(draw: Callable[[], int]) -> Rate:
    """Rate of `draw`, which returns how many tokens it made, in its second call."""
    draw()
    wall_s, processor_s = time.perf_counter(), time.process_time()
    tokens = draw()
    wall_s = time.perf_counter() - wall_s
    return Rate(tokens / wall_s, tokens / (time.process_time() - processor_s))


def prompts(count: int) -> list[str]:
    """Problems whose answers are long and of unequal length."""
    each = {3: count // 2, 4: count - count // 2}
    return [item.prompt for item in problems("retry", each, _SEED)]


def embedded(folder: Path, batch: int, rounds: int, threads: int | None) -> Rate:
    engine = EmbeddedEngine(folder.name, folder, max_batch=batch, threads=threads)
    requests = [
        Request(prompt=prompt, n=max(1, batch // 4), max_tokens=MAX_TOKENS, seed=_SEED)
        for prompt in prompts(rounds * min(4, batch))
    ]

    def draw() -> int:
        return sum(d.output_tokens for draws in draw_all(engine, requests) for d in draws)

    try:
        return measured(draw)
    finally:
        engine.close()


def transformers(folder: Path, batch: int, rounds: int, threads: int | None) -> Rate:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if threads:
        torch.set_num_threads(threads)
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    each = min(4, batch)
    listed = prompts(rounds * each)

    def draw() -> int:
        tokens = 0
        for first in range(0, len(listed), each):
            inputs = tokenizer(
                listed[first : first + each], return_tensors="pt", padding=True
            )
            made = model.generate(
                input_ids=inputs.input_ids,
                attention_mask=inputs.attention_mask,
                do_sample=True,
                top_k=0,
                max_new_tokens=MAX_TOKENS,
                num_return_sequences=batch // each,
            )[:, inputs.input_ids.shape[1] :]
            ended = (made == model.generation_config.eos_token_id).int()
            tokens += int((ended.cumsum(1) - ended == 0).sum())
        return tokens

    torch.manual_seed(_SEED)
    return measured(draw)


def is_generator(folder: Path) -> bool:
    """Whether the folder holds a model that draws text, not a verifier."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return False
    return "LlamaForCausalLM" in config.get("architectures", [])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*", type=Path, help="default: reference models")
    parser.add_argument("--draws", type=int, default=4, help="batches of draws a figure")
    parser.add_argument("--threads", type=int, help="default: what BLAS and torch choose")
    arguments = parser.parse_args()
    folders = arguments.folders or sorted(filter(is_generator, REFERENCE.iterdir()))
    both = all(importlib.util.find_spec(name) for name in ("torch", "transformers"))
    print(f"{'model':12} {'batch':>5} {'embedded tok/s':>15} {'per CPU-s':>10}", end="")
    print(f" {'transformers tok/s':>19} {'per CPU-s':>10} {'ratio':>6}" if both else "")
    for folder in folders:
        for batch in BATCHES:
            try:
                ours = embedded(folder, batch, arguments.draws, arguments.threads)
            except InputError as error:
                parser.error(str(error))
            print(
                f"{folder.name:12} {batch:5} {ours.wall:15,.0f} {ours.processor:10,.0f}",
                end="",
            )
            if both:
                theirs = transformers(folder, batch, arguments.draws, arguments.threads)
                print(f" {theirs.wall:19,.0f} {theirs.processor:10,.0f}", end="")
                print(f" {ours.wall / theirs.wall:6.1f}", end="")
            print(flush=True)


if __name__ == "__main__":
    main()
