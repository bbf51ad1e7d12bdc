"""Train a reference model from scratch: `python -m planner.calibration.reference.train`.

Muon (Jordan et al. 2024) on the layers' matrices, AdamW on the rest, one cosine decay
over a fixed number of tokens. The data of step t depends on the seed and t alone, so a run
that was killed continues where its last checkpoint stood. Needs the `train` extra (torch).
"""

import argparse
import json
import math
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from planner.calibration.reference.architecture import SIZES, Llama, save
from planner.calibration.reference.tasks import (
    MAX_TOKENS,
    PAD,
    TASKS,
    VOCABULARY,
    training_sequence,
)

TOKENS = {"tiny-0.2m": 5_000_000, "tiny-0.8m": 5_000_000, "tiny-3m": 6_000_000,
          "tiny-7m": 9_000_000}  # fmt: skip
_BLOCK = 1024  # sequences generated and sorted by length together
_STEP_TOKENS = 2048
_WARM_UP_STEPS = 50
_CHECKPOINT_S = 120.0
_VALIDATION_SEED = -1

Batch = tuple[Tensor, Tensor]  # token ids, which of them are targets; (rows, length)


def _block(
    seed: int, index: int, count: int = _BLOCK
) -> list[tuple[list[int], list[bool]]]:
    rng = random.Random(f"{seed}/{index}")
    return [training_sequence(rng) for _ in range(count)]


def _padded(sequences: list[tuple[list[int], list[bool]]]) -> Batch:
    length = max(len(ids) for ids, _ in sequences)
    ids = np.full((len(sequences), length), PAD, np.int64)
    target = np.zeros((len(sequences), length), bool)
    for row, (tokens, mask) in enumerate(sequences):
        ids[row, : len(tokens)], target[row, : len(mask)] = tokens, mask
    return torch.from_numpy(ids), torch.from_numpy(target)


def batches(seed: int) -> Iterator[Batch]:
    """Batches of about `_STEP_TOKENS` tokens, of similar lengths, the same for a seed."""
    index = 0
    while True:
        block = sorted(_block(seed, index), key=lambda s: len(s[0]))
        groups: list[list[tuple[list[int], list[bool]]]] = []
        group: list[tuple[list[int], list[bool]]] = []
        for sequence in block:
            if group and (len(group) + 1) * len(sequence[0]) > _STEP_TOKENS:
                groups.append(group)
                group = []
            group.append(sequence)
        groups.append(group)
        random.Random(f"{seed}/{index}/order").shuffle(groups)
        yield from map(_padded, groups)
        index += 1


def loss_of(model: Llama, batch: Batch, *, bf16: bool) -> Tensor:
    """Mean cross-entropy of the target tokens, in nats."""
    ids, target = batch
    mask = target[:, 1:]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        logits = model.head(model.hidden(ids[:, :-1])[mask])
    return F.cross_entropy(logits.float(), ids[:, 1:][mask])


@torch.no_grad()
def validation_loss(model: Llama, *, bf16: bool) -> dict[str, float]:
    """Nats a target token on sequences that are never trained on, by task."""
    held = _block(_VALIDATION_SEED, 0, 600)
    letters = dict(zip((VOCABULARY[c] for c in "ACR"), TASKS, strict=True))
    losses = {}
    for letter, task in letters.items():
        batch = _padded([s for s in held if s[0][1] == letter])
        losses[task] = round(float(loss_of(model, batch, bf16=bf16)), 4)
    return losses


def optimisers(model: torch.nn.Module, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for embeddings, norms and head."""
    named = list(model.named_parameters())
    matrices = [p for n, p in named if p.dim() == 2 and "layers" in n]
    others = [p for n, p in named if not (p.dim() == 2 and "layers" in n)]
    return [
        torch.optim.Muon(
            matrices,
            lr=rate,
            weight_decay=0.05,
            momentum=0.95,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]


def update(
    model: torch.nn.Module, opts: list[torch.optim.Optimizer], loss: Tensor, rate: float
) -> None:
    """One optimiser step at a learning rate."""
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimiser in opts:
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)


def _save_checkpoint(
    path: Path, model: Llama, opts: list[torch.optim.Optimizer], progress: dict[str, Any]
) -> None:
    tensors = {f"model/{k}": v for k, v in model.state_dict().items()}
    for o, optimiser in enumerate(opts):
        for index, state in optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser/{o}/{index}/{k}": v for k, v in state.items()}
    staged = path.with_suffix(".tmp")
    save_file(
        {k: v.detach().contiguous() for k, v in tensors.items()},
        staged,
        metadata={"progress": json.dumps(progress)},
    )
    staged.rename(path)


def _load_checkpoint(
    path: Path, model: Llama, opts: list[torch.optim.Optimizer]
) -> dict[str, Any]:
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        progress: dict[str, Any] = json.loads(file.metadata()["progress"])
    model.load_state_dict(
        {k.removeprefix("model/"): v for k, v in tensors.items() if k.startswith("model/")}
    )
    for o, optimiser in enumerate(opts):
        content = optimiser.state_dict()
        for name, tensor in tensors.items():
            if name.startswith(f"optimiser/{o}/"):
                index, key = name.split("/")[2:]
                content["state"].setdefault(int(index), {})[key] = tensor
        optimiser.load_state_dict(content)
    return progress


def train(name: str, folder: Path, *, tokens: int, seed: int, rate: float) -> None:
    """Train one model to `folder`, with its log, from its checkpoint if there is one."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "checkpoint.safetensors"
    model = Llama(SIZES[name])
    bf16 = SIZES[name]["hidden_size"] >= 256  # below that casting costs more than it saves
    opts = optimisers(model, rate)
    progress: dict[str, Any] = {"step": 0, "tokens": 0, "cpu_s": 0.0, "log": []}
    if checkpoint.exists():
        progress = _load_checkpoint(checkpoint, model, opts)
        print(f"{name}: continues at step {progress['step']}", file=sys.stderr)
    before_s, started_s = progress["cpu_s"], time.process_time()
    saved_s, recent = time.perf_counter(), []
    for step, batch in enumerate(batches(seed)):
        if step < progress["step"]:
            continue
        share = progress["tokens"] / tokens
        if share >= 1:
            break
        cosine = 0.03 + 0.97 * (0.5 + 0.5 * math.cos(math.pi * share))
        loss = loss_of(model, batch, bf16=bf16)
        update(model, opts, loss, rate * cosine * min(1.0, (step + 1) / _WARM_UP_STEPS))
        recent.append(float(loss))
        progress["step"] = step + 1
        progress["tokens"] += int((batch[0] != PAD).sum())
        progress["cpu_s"] = before_s + time.process_time() - started_s
        if int(20 * progress["tokens"] / tokens) > int(20 * share):
            entry = {
                "step": step + 1, "tokens": progress["tokens"],
                "cpu_s": round(progress["cpu_s"], 1),
                "training_nats": round(float(np.mean(recent)), 4),
                "validation_nats": validation_loss(model, bf16=bf16),
            }  # fmt: skip
            progress["log"].append(entry)
            recent = []
            print(name, json.dumps(entry), flush=True)
        if time.perf_counter() - saved_s > _CHECKPOINT_S:
            _save_checkpoint(checkpoint, model, opts, progress)
            saved_s = time.perf_counter()
    save(model, folder)
    log = {
        "model": name, "seed": seed, "learning_rate": rate, "bf16": bf16,
        "parameters": sum(p.numel() for p in model.parameters()),
        "torch": torch.__version__, "threads": torch.get_num_threads(),
        "max_tokens": MAX_TOKENS, **progress,
    }  # fmt: skip
    (folder / "training.json").write_text(json.dumps(log, indent=1) + "\n")
    checkpoint.unlink(missing_ok=True)


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=list(SIZES), help="which; default all")
    parser.add_argument("--out", type=Path, default=Path("data/reference"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--tokens", type=int, help="default: grows with the model's size")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for name in args.models:
        train(
            name, args.out / name, tokens=args.tokens or TOKENS[name], seed=args.seed,
            rate=args.rate,
        )  # fmt: skip


if __name__ == "__main__":
    main()
