"""Effects that were not measured jointly: `python benchmarks/joint_holdout.py [LAWS.json]`.

From the fitted cells of a workspace (the reference laws, if none is given) one corner of
temperature x token cap is left out, and combined by the joint law from three others; every
corner of every rectangle in turn. Prints, by strategy, the mean error of accuracy and of
output tokens against what was measured at that corner, how often its 90 % interval held
that, its width beside the measured one's, and the error of two who know one effect only:
reading the same temperature at the other cap, or the same cap at the other temperature.
"""

import sys
from itertools import combinations
from pathlib import Path

import numpy as np

import planner.data
from planner.models.artifact import Cell, Laws
from planner.models.joint import JointLaw, JointPrediction, OptionPoints

LAWS = Path(planner.data.__file__).with_name("reference") / "laws.json"
COLUMNS = ("error", "tokens", "held", "width", "measured", "other cap", "other T")


def corners(cells: list[Cell]) -> list[list[Cell]]:
    """Every two temperatures and caps of one class, as four cells; the first is to go."""
    at = {(c.temperature, c.max_tokens): c for c in cells}
    temperatures, caps = ({key[i] for key in at} for i in (0, 1))
    found = []
    for t in combinations(sorted(temperatures), 2):
        for c in combinations(sorted(caps), 2):
            for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
                keys = [
                    (t[i], c[j]), (t[i], c[1 - j]), (t[1 - i], c[j]), (t[1 - i], c[1 - j])
                ]  # fmt: skip
                if all(key in at for key in keys):
                    found.append([at[key] for key in keys])
    return found


def judge(laws: Laws, four: list[Cell]) -> list[tuple[str, list[float]]]:
    """Strategy and columns of every n measured at the first of four cells."""
    gone, *kept = four
    rest = laws.model_copy(update={"cells": tuple(kept)})
    law = JointLaw.of(rest, gone.model, gone.task)
    rows = []
    for curve in gone.curves:
        ns = [n for n in curve.n if n <= curve.n_max and (n > 1 or len(curve.n) == 1)]

        def at(
            cell: Cell, ns: list[int] = ns, name: str = curve.strategy
        ) -> JointPrediction:
            point = cell.max_tokens, cell.temperature, cell.difficulty
            return law.predict(OptionPoints.of(name, ns, *point))

        try:
            made, same_t, same_cap = at(gone), at(kept[0]), at(kept[1])
        except LookupError:  # a strategy that greedy draws, say, do not have
            continue
        for i, n in enumerate(ns):
            at_n = curve.n.index(n)
            truth, tokens = curve.accuracy[at_n], curve.output_tokens[at_n]
            row = [
                abs(made.accuracy[i] - truth), abs(made.output_tokens[i] / tokens - 1),
                float(made.low[i] <= truth <= made.high[i]), made.high[i] - made.low[i],
                2 * 1.645 * curve.accuracy_sd[at_n],
                abs(same_t.accuracy[i] - truth), abs(same_cap.accuracy[i] - truth),
            ]  # fmt: skip
            rows.append((curve.strategy, [float(x) for x in row]))
    return rows


def main(path: Path) -> None:
    """Leave out, combine, compare and print."""
    laws = Laws.load(path)
    groups: dict[tuple[str, str, int], list[Cell]] = {}
    for cell in laws.cells:
        groups.setdefault((cell.model, cell.task, cell.difficulty), []).append(cell)
    rows = [
        r for cells in groups.values() for four in corners(cells) for r in judge(laws, four)
    ]
    print(f"{'':18s}{'rows':>7s}" + "".join(f"{name:>11s}" for name in COLUMNS))
    for name in ("", *dict.fromkeys(strategy for strategy, _ in rows)):
        own = np.array([row for strategy, row in rows if name in ("", strategy)])
        means = "".join(f"{x:11.4f}" for x in own.mean(axis=0))
        print(f"{name or 'all':18s}{len(own):7d}{means}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else LAWS)
