"""Processes that race each other: forked from a server that has imported what they use. Nothing is asserted here.

A process that is spawned imports pandas, Delta and MLflow for a second or three before it comes to its race.
"""

from __future__ import annotations

import multiprocessing

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["one_thread", "pandas", "deltalake", "mlflow.tracking", "mlflow.store.tracking.sqlalchemy_store",
     "mlflow.store.model_registry.sqlalchemy_store", "perennial.workspace"]
)  # fmt: skip
