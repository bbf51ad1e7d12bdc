"""Import every module of the installed package; run from a folder with its own `models/`.

    python scripts/check_wheel.py FOLDER

FOLDER gets decoy packages named as our repository's folders, and becomes the working
folder: none of ours may be shadowed by them, nor come from the repository.
"""

import importlib
import os
import pkgutil
import sys
from pathlib import Path

EXTRAS = {"torch", "transformers", "vllm"}  # not in the default install
DECOYS = ("models", "data", "calibration")


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    for name in DECOYS:
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "__init__.py").write_text("DECOY = True\n")
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    planner = importlib.import_module("planner")
    home = Path(planner.__file__ or "").parent
    count = 0
    for module in pkgutil.walk_packages([str(home)], "planner."):
        try:
            loaded = importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] not in EXTRAS:
                raise
            continue
        assert Path(loaded.__file__ or "").is_relative_to(home), module.name
        count += 1
    for name in DECOYS:
        assert importlib.import_module(name).DECOY, f"our {name} shadows the user's"
    weights = sorted((home / "data" / "reference").glob("*/model.safetensors"))
    assert len(weights) >= 5, "the reference models must travel in the wheel"
    print(f"{count} modules imported; {len(weights)} weight files in the wheel")


if __name__ == "__main__":
    main()
