"""`python -m perennial.serving.versions.fetch SOURCE GOLDEN FOLDER`: fetch a version by MLflow, end. Checks nothing.

The registry is the one in MLFLOW_TRACKING_URI.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from perennial.surroundings import collect_seldom


def fetch(source: str, golden: str, folder: Path) -> None:
    """Put the model's files into FOLDER/model and the golden rows beside it."""
    import mlflow

    downloads = folder / "download"
    model = Path(mlflow.artifacts.download_artifacts(source, dst_path=str(downloads)))
    shutil.copytree(model, folder / "model")
    rows = Path(mlflow.artifacts.download_artifacts(golden, dst_path=str(downloads / "golden")))
    shutil.copy2(rows, folder / Path(golden).name)
    shutil.rmtree(downloads)


if __name__ == "__main__":
    collect_seldom()
    fetch(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
