"""Train the reference verifier: `python -m planner.calibration.reference.train_verifier`.

A reference model with a scalar head, trained on the reference models' own graded samples
of problems that are never measured. What it says of a draw is the log-odds of being
correct, read at the end of the text; the same target at every token helps it learn (as in
Lightman et al. 2023, arXiv:2305.20050, without their step labels). Needs the `train` extra.
"""

import argparse
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from planner.calibration.reference.architecture import SIZES, Llama, save
from planner.calibration.reference.tasks import BOS, EOS, PAD, TASKS, Exercise, encode
from planner.calibration.reference.tasks import problems as exercises
from planner.calibration.reference.train import optimisers, update
from planner.engines.base import Request, draw_all
from planner.engines.embedded import EmbeddedEngine
from planner.models.records import Problem
from planner.verifiers import get_verifier

BASE = "tiny-0.8m"
NAME = "tiny-verifier"
LEVELS = {
    "chain": dict.fromkeys(range(1, 11), 40),
    "countdown": dict.fromkeys(range(2, 7), 60),
    "retry": dict.fromkeys(range(2, 7), 80),
}
_DRAWS = 6
_MAX_TOKENS = 144
_ROWS = 32  # of a batch
_EPOCHS = 3
_RATE = 1.5e-3
_WARM_UP_STEPS = 30
_TOKEN_LOSS_WEIGHT = 0.5


@dataclass(frozen=True)
class Graded:
    """One sample to learn from."""

    ids: tuple[int, ...]
    prompt_tokens: int
    correct: bool
    problem: str


def graded_samples(models: list[Path], seed: int) -> list[Graded]:
    """Draws of every model on problems outside the measured share, graded."""
    listed = [
        item
        for task in TASKS
        for item in exercises(task, LEVELS[task], seed, held_out=False)
    ]
    return [sample for folder in models for sample in _draws(folder, listed, seed)]


def _draws(folder: Path, listed: list[Exercise], seed: int) -> Iterator[Graded]:
    engine = EmbeddedEngine(folder.name, folder)
    requests = [
        Request(prompt=e.prompt, n=_DRAWS, max_tokens=_MAX_TOKENS, seed=seed + i)
        for i, e in enumerate(listed)
    ]
    for item, draws in zip(listed, draw_all(engine, requests), strict=True):
        verifier = get_verifier("chain" if item.task == "chain" else "countdown")
        problem = Problem(
            problem_id=item.key, task=item.task, prompt=item.prompt,
            verifier=verifier.name, reference=item.reference,
        )  # fmt: skip
        for draw in draws:
            ids = (BOS, *encode(item.prompt), *encode(draw.text), EOS)
            correct = verifier.grade(problem, draw.text).correct
            yield Graded(ids, 1 + len(item.prompt), correct, item.task + item.key)
    engine.close()


def _batches(samples: list[Graded], rng: random.Random) -> Iterator[list[Graded]]:
    """Batches of similar lengths, in random order."""
    shuffled = rng.sample(samples, len(samples))
    for start in range(0, len(shuffled), 32 * _ROWS):
        block = sorted(shuffled[start : start + 32 * _ROWS], key=lambda s: len(s.ids))
        batches = [block[i : i + _ROWS] for i in range(0, len(block), _ROWS)]
        rng.shuffle(batches)
        yield from batches


def _scores(model: Llama, batch: list[Graded]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scores (rows, length), answer mask, index of the last token, target (rows,)."""
    length = max(len(s.ids) for s in batch)
    ids = torch.full((len(batch), length), PAD)
    answer = torch.zeros(len(batch), length, dtype=torch.bool)
    for row, sample in enumerate(batch):
        ids[row, : len(sample.ids)] = torch.tensor(sample.ids)
        answer[row, sample.prompt_tokens : len(sample.ids)] = True
    last = torch.tensor([len(s.ids) - 1 for s in batch])
    target = torch.tensor([float(s.correct) for s in batch])
    return model.head(model.hidden(ids))[..., 0], answer, last, target


def _loss(model: Llama, batch: list[Graded]) -> Tensor:
    scores, answer, last, target = _scores(model, batch)
    at_end = F.binary_cross_entropy_with_logits(
        scores[torch.arange(len(batch)), last], target
    )
    spread = target[:, None].expand_as(scores)[answer]
    return at_end + _TOKEN_LOSS_WEIGHT * F.binary_cross_entropy_with_logits(
        scores[answer], spread
    )


def area_under_roc(scores: np.ndarray, correct: np.ndarray) -> float:
    """Probability that a correct draw scores above a wrong one; NaN without both."""
    if correct.all() or not correct.any():
        return float("nan")
    wins = scores[correct][:, None] - scores[~correct][None]
    return float(((wins > 0) + 0.5 * (wins == 0)).mean())


@torch.no_grad()
def evaluate(model: Llama, held: list[Graded]) -> dict[str, dict[str, float]]:
    """Area under the ROC curve by task, pooled and within a problem's own draws.

    Pooled areas overstate selection: only within-problem quality picks better draws.
    """
    scores = np.concatenate(
        [
            s[torch.arange(len(b)), last].numpy()
            for b in (held[i : i + 256] for i in range(0, len(held), 256))
            for s, _, last, _ in [_scores(model, b)]
        ]
    )
    correct = np.array([s.correct for s in held])
    report = {}
    for task in TASKS:
        mine = np.array([s.problem.startswith(task) for s in held])
        groups: dict[str, list[int]] = {}
        for index in np.flatnonzero(mine):
            groups.setdefault(held[index].problem, []).append(int(index))
        within = [area_under_roc(scores[g], correct[g]) for g in groups.values()]
        report[task] = {
            "pooled_auc": round(area_under_roc(scores[mine], correct[mine]), 4),
            "within_problem_auc": round(float(np.nanmean(within)), 4),
            "share_correct": round(float(correct[mine].mean()), 4),
        }
    return report


def train_verifier(folder: Path, *, seed: int) -> None:
    """Train on draws of every model in `folder`; write `folder / NAME`, with its log."""
    models = [folder / name for name in SIZES]
    samples = graded_samples(models, seed)
    rng = random.Random(seed)
    # one problem in ten is for the log's figures, with every draw of it
    names = sorted({s.problem for s in samples})
    kept = set(rng.sample(names, len(names) // 10))
    held = [s for s in samples if s.problem in kept]
    samples = [s for s in samples if s.problem not in kept]
    torch.manual_seed(seed)
    model = Llama(SIZES[BASE], outputs=1)
    weights = load_file(folder / BASE / "model.safetensors")
    body = {k: v.float() for k, v in weights.items() if not k.startswith("lm_head")}
    model.load_state_dict(body, strict=False)
    opts = optimisers(model, _RATE)
    steps, recent, log = _EPOCHS * len(samples) // _ROWS, [], []
    step = 0
    for _ in range(_EPOCHS):
        for batch in _batches(samples, rng):
            loss = _loss(model, batch)
            decay = max(0.03, 1 - step / steps)
            update(model, opts, loss, _RATE * decay * min(1.0, (step + 1) / _WARM_UP_STEPS))
            recent.append(float(loss))
            step += 1
            if step % 200 == 0:
                log.append(
                    {"step": step, "training_nats": round(float(np.mean(recent)), 4)}
                )
                recent = []
                print(NAME, json.dumps(log[-1]), flush=True)
    save(model, folder / NAME)
    content = {
        "model": NAME, "base": BASE, "seed": seed, "learning_rate": _RATE,
        "epochs": _EPOCHS,
        "samples": len(samples), "held_out_samples": len(held), "log": log,
        "held_out": evaluate(model, held),
    }  # fmt: skip
    (folder / NAME / "training.json").write_text(json.dumps(content, indent=1) + "\n")
    print(NAME, json.dumps(content["held_out"]), flush=True)


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("data/reference"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    train_verifier(args.out, seed=args.seed)


if __name__ == "__main__":
    main()
