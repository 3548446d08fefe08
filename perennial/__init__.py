"""What flows and the serving API share: definition, settings, tables, registry, errors; the API; the command line.

For notebooks: `perennial.open(home).model("churn")`, see `perennial.interactive`.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

from perennial.surroundings import spare_loopback

__version__ = "0.1.0"

# Every dependency's telemetry is off, and its noise, before any of them is imported.
for _name, _value in {
    "DO_NOT_TRACK": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}.items():
    os.environ.setdefault(_name, _value)

# Idle OpenMP threads sleep instead of spinning: on a busy machine a spinning fit takes many times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Before any client reads it: who speaks to a server on this machine asks no proxy.
spare_loopback(os.environ)


def open(
    home: str | Path | None = None, *, models: str | Path | None = None, expectations: str | Path | None = None
) -> Any:
    """An installation's models, for notebooks: a `perennial.interactive.installation.Installation`.

    Args:
        home: The folder of all state; default: PERENNIAL_HOME, or .perennial.
        models, expectations: The folders of definitions and suites; default: the environment's, or the checkout's.
    """
    # By name: everything imports this package, and must not depend on what stands above it.
    door = importlib.import_module("perennial.interactive.installation")
    return door.open_installation(home, models=models, expectations=expectations)
