"""Counts of the smallest reference model on countdown problems, for `planner validate`.

    python benchmarks/reference_counts.py counts.csv [--draws 10000] [--problems 128]
    planner validate counts.csv --n-train 8,16,32 --redraws 20

With 10,000 draws a problem the truth far beyond a few draws is known. About 8 s a problem;
each one's line is written as it is done.
"""

import argparse
from collections import Counter
from pathlib import Path

from planner.blas import prefer_wide_kernels
from planner.calibration.suites import reference_problems
from planner.data import REFERENCE
from planner.engines.base import Request
from planner.engines.embedded import EmbeddedEngine
from planner.verifiers import get_verifier

_MODEL = "tiny-0.2m"
_LEVELS = {4: 20, 5: 50, 6: 58}
_SEED, _MAX_TOKENS, _REQUEST = 77, 128, 500  # draws of a request


def main() -> None:
    """Write one line a problem."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("--draws", type=int, default=10_000, help=f"times {_REQUEST}")
    parser.add_argument("--problems", type=int, default=sum(_LEVELS.values()))
    arguments = parser.parse_args()
    problems = reference_problems(_SEED, {"countdown": _LEVELS})[: arguments.problems]
    verifier = get_verifier("countdown")
    engine = EmbeddedEngine(_MODEL, REFERENCE / _MODEL, max_batch=256)
    requests = arguments.draws // _REQUEST
    with arguments.path.open("w") as file:
        file.write("benchmark,model,problem_id,n_samples,n_correct\n")
        for i, problem in enumerate(problems):
            texts: Counter[str] = Counter()
            with engine.session() as session:
                for key in range(requests):
                    session.submit(
                        key,
                        Request(
                            prompt=problem.prompt,
                            n=_REQUEST,
                            max_tokens=_MAX_TOKENS,
                            seed=1000 * i + key,
                        ),
                    )
                while session.outstanding:
                    texts.update(done.draw.text for done in session.poll())
            right = sum(
                n for text, n in texts.items() if verifier.grade(problem, text).correct
            )
            n = texts.total()
            file.write(f"reference countdown,{_MODEL},{problem.problem_id},{n},{right}\n")
            file.flush()
    engine.close()


if __name__ == "__main__":
    prefer_wide_kernels()
    main()
