"""Processes that are forked from a server that has imported what they use: racers, Dask's workers. Nothing is asserted.

A process that is spawned imports pandas, Delta and MLflow, or Dask, for a second or three before it comes to its work.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager

import dask
import distributed.utils

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["lean_processes", "pandas", "deltalake", "mlflow.tracking", "mlflow.store.tracking.sqlalchemy_store",
     "mlflow.store.model_registry.sqlalchemy_store", "perennial.workspace", "distributed", "sklearn.ensemble",
     "tasks.compute.cluster", "tasks.learning.search"]
)  # fmt: skip
DASK_METHOD = "distributed.worker.multiprocessing-method"
distributed.utils._forkserver_preload_set = True  # or it would put a list of its own in the place of this one


@contextmanager
def forked_dask_workers() -> Iterator[None]:
    """Dask's workers come from there too."""
    with dask.config.set({DASK_METHOD: "forkserver"}):
        yield
