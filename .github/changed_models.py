"""`models=[…]` for paths of changed files on the standard input: models whose definition, suite or code changed.

A changed definition or suite names its model; a changed Python file the models whose YAML names it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

NOT_MODELS = ("prefect", "automations")


def changed_models(paths: list[str], folder: Path) -> list[str]:
    """The models that stand in the folder and are touched by the paths, in order."""
    definitions = {path.stem: path for path in sorted(folder.glob("*.yaml")) if path.stem not in NOT_MODELS}
    touched = {Path(path) for path in paths}
    stems = {path.stem for path in touched if path.suffix in (".yaml", ".json")}
    code = {path.name for path in touched if path.suffix == ".py"}
    return [
        name
        for name, path in definitions.items()
        if name in stems or any(file in path.read_text(encoding="utf-8") for file in code)
    ]


if __name__ == "__main__":
    print(f"models={json.dumps(changed_models(sys.stdin.read().split(), Path('deployments')))}")
