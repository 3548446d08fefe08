"""`trim.py VENV`: remove from an image's packages what only their developers need; no module that is imported."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

# Whole packages of tests, data for them, and C++ headers. Each was looked for among what the packages import.
FOLDERS = (
    "pandas/tests", "pyarrow/tests", "pyarrow/include", "scipy/*/tests", "scipy/*/*/tests", "numpy/*/tests",
    "numpy/*/include", "sklearn/*/tests", "sklearn/tests", "sklearn/datasets/tests", "matplotlib/tests",
    "matplotlib/backends/web_backend", "joblib/test", "treelite/include", "networkx/*/tests", "statsmodels/*/tests",
    "statsmodels/*/*/tests", "skops/*/tests", "mlflow/server/js/build/static/**/*.map",
)  # fmt: skip


def trim(site: Path) -> int:
    """Remove the folders and files; the bytes that they held."""
    freed = 0
    for pattern in FOLDERS:
        for path in sorted(site.glob(pattern)):
            files = [path] if path.is_file() else [item for item in path.rglob("*") if item.is_file()]
            freed += sum(item.stat().st_size for item in files)
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
    return freed


if __name__ == "__main__":
    for folder in Path(sys.argv[1]).glob("lib/python3*/site-packages"):
        print(f"trimmed {trim(folder) / 1e6:.0f} MB from {folder}")
