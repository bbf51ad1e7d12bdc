"""Check the `summary.json` that `planner demo` wrote.

python scripts/check_summary.py FILE
"""

import json
import sys
from pathlib import Path


def main() -> None:
    summary = json.loads(Path(sys.argv[1]).read_text())
    budget, accuracy = summary["budget"], summary["accuracy"]
    mean, low, high = accuracy["predicted"]
    assert low <= mean <= high, accuracy
    assert 0 <= accuracy["achieved"] <= 1, accuracy
    assert 0 < summary["spent"] <= budget["total"], "the budget was crossed"
    assert summary["n_prompts"] > 0
    assert summary["baselines"], "nothing to compare with"
    for name, arm in summary["baselines"].items():
        assert 0 <= arm["accuracy"] <= 1, name
        assert 0 < arm["spent"] <= budget["total"], f"{name} crossed the budget"
    assert set(summary["holdout"]) == {"coverage_abs_error", "interval_coverage"}
    assert summary["seconds"] > 0
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
