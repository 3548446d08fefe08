"""Work sent to a Dask cluster: connecting, data sent once, workers lost. What the work is belongs elsewhere.

Plain `distributed`, and not prefect-dask: that runs Prefect's tasks on a cluster, and here what is spread lies within
one step, where nothing may know Prefect. It is imported when a definition names a `runner`, never before.

Whatever many calls share (rows, a fitted pipeline) is sent to the workers once. Dask runs the calls of a worker that
died on another one; only where every holder of shared data died at once it is sent again from here.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar

import joblib

from perennial.definition import ModelDefinition, duration_text
from perennial.errors import DefinitionError, ServiceError
from perennial.model.plugins import load_module, split_spec
from tasks.learning.fitting import environment_fingerprint
from tasks.learning.trials import Evaluate, Evaluation, Executor, Parameters

T = TypeVar("T")
R = TypeVar("R")
# How often lost data is sent again; each time every worker that held it must have died.
_SENDINGS = 3
_POLL_SECONDS = 2.0
_CLOSE_SECONDS = 5.0
_END = object()


@contextlib.contextmanager
def open_cluster(definition: ModelDefinition) -> Iterator[Cluster | None]:
    """The cluster that the definition's `runner` names, for as long as the context lasts; None where it names none.

    Raises:
        DefinitionError: The address's environment variable is not set, or Dask isn't installed.
        ServiceError: No scheduler answers in time, it has no worker, or workers have other versions than this process.
    """
    if definition.runner is None:
        yield None
        return
    address = _address(definition.runner.dask)
    seconds = definition.runner.timeout.total_seconds()
    try:
        import distributed
    except ImportError as error:
        raise DefinitionError(
            f"runner.dask of {definition.name} needs Dask, which is not installed: {error}",
            "Install it: pip install 'perennial[dask]'",
        ) from error
    with contextlib.ExitStack() as stack:
        if address == "local":
            address = stack.enter_context(_local_cluster()).scheduler_address
        try:
            # Asked first, since the client itself waits for ever for a server that is silent.
            with ThreadPoolExecutor(1) as apart:
                apart.submit(asyncio.run, _ask_scheduler(address, seconds)).result()
            client = distributed.Client(address, timeout=seconds, set_as_default=False, name="perennial")
        except (OSError, TimeoutError, ValueError) as error:
            raise ServiceError(
                f"no Dask scheduler answers at {address} within {duration_text(definition.runner.timeout)}",
                "Start it (`dask scheduler`, then `dask worker ADDRESS`), or correct runner.dask",
            ) from error
        stack.callback(client.close, timeout=_CLOSE_SECONDS)
        cluster = Cluster(client, address, seconds)
        _bring_team_code(client, definition)
        yield cluster


async def _ask_scheduler(address: str, seconds: float) -> None:
    from distributed import rpc

    async with asyncio.timeout(seconds), rpc(address) as scheduler:
        await scheduler.identity()


@contextlib.contextmanager
def tuning_executor(definition: ModelDefinition) -> Iterator[Executor | None]:
    """What runs a search's trials on the definition's cluster; None, for this process's threads, where it has none."""
    with open_cluster(definition) as cluster:
        if cluster is None:
            yield None
            return
        with cluster.trials(definition.training.tuning.workers) as executor:
            yield executor


def _bring_team_code(client: Any, definition: ModelDefinition) -> None:
    """Let every worker, later ones too, load a custom estimator's file: what is made of it can't be unpickled else.

    Raises:
        DefinitionError: A worker does not have the file, or has another one of its name.
    """
    if ":" not in definition.training.estimator:
        return
    from distributed import WorkerPlugin

    path = split_spec(definition.training.estimator, definition.folder)[0]
    wanted = load_module(path).__name__

    class TeamCode(WorkerPlugin):
        name = wanted

        def setup(self, worker: Any) -> None:
            _load_same(path, wanted, worker.address)

    client.register_plugin(TeamCode())


def _load_same(path: Path, wanted: str, worker: str) -> None:
    if load_module(path).__name__ != wanted:  # the name is made of path and content
        raise DefinitionError(
            f"{path} on the Dask worker {worker} is not the file that is here", "Bring the workers the same files"
        )


class Cluster:
    """A connection to a scheduler whose workers run what this process runs.

    Args:
        client: A `distributed.Client`.
        address: For messages.
        patience_seconds: How long a worker is waited for where there is none.
    """

    def __init__(self, client: Any, address: str, patience_seconds: float) -> None:
        self.client = client
        self.address = address
        self.patience_seconds = patience_seconds
        self._require_workers()
        self.threads = max(1, sum(client.nthreads().values()))

    @contextlib.contextmanager
    def share(self, value: Any) -> Iterator[Shared]:
        """The value on the workers, for as long as the context lasts."""
        shared = Shared(self, value)
        try:
            yield shared
        finally:
            shared.release()

    @contextlib.contextmanager
    def trials(self, workers: int) -> Iterator[Executor]:
        """Where `learning.search.tune` evaluates so many trials at once: their data is sent when it is first seen."""
        with ThreadPoolExecutor(workers, "trial") as waiting, contextlib.ExitStack() as stack:
            try:
                yield _Trials(self, waiting, stack)
            except BaseException:
                waiting.shutdown(wait=False, cancel_futures=True)
                raise

    def require_alive(self, since: float) -> None:
        """Refuse to wait on where the scheduler is gone, or has had no worker since the moment for too long.

        Raises:
            ServiceError: So it is.
        """
        if self.client.status != "running":
            raise self._gone()
        if time.monotonic() - since > self.patience_seconds and not self.client.nthreads():
            raise ServiceError(
                f"the Dask cluster at {self.address} has had no worker for {self.patience_seconds:g} s",
                "Start workers and run the same again: trials that ended are not evaluated twice",
            )

    def _gone(self) -> ServiceError:
        return ServiceError(
            f"the Dask scheduler at {self.address} went away",
            "Start it and run the same again: trials that ended are not evaluated twice",
        )

    def _require_workers(self) -> None:
        """Wait for one worker, which a call makes an adaptive cluster start."""
        started = time.monotonic()
        first = self.client.submit(_call, _agree, environment_fingerprint(), None, None, pure=False)
        while not _is_over(first):
            self.require_alive(started)
        try:
            self.result(first)
        except CancelledError as error:
            raise self._gone() from error

    def result(self, future: Any) -> Any:
        """What a call gave that is over.

        Raises:
            ServiceError: The worker lacks Perennial, or its versions are others.
        """
        try:
            return future.result()
        except ImportError as error:
            raise ServiceError(
                f"a worker of {self.address} can't import what this process runs: {error}",
                "Start the workers from the image or environment that this process runs in",
            ) from error


@dataclass
class _Trials:
    """An executor: a thread waits for each trial that is under way."""

    cluster: Cluster
    waiting: ThreadPoolExecutor
    stack: contextlib.ExitStack
    shared: Shared | None = None

    def submit(self, evaluate: Evaluate, parameters: Parameters, /) -> Future[Evaluation]:
        if self.shared is None or self.shared.value is not evaluate:
            self.stack.close()
            self.shared = self.stack.enter_context(self.cluster.share(evaluate))
        return self.waiting.submit(self.shared.call, _evaluate, parameters)


class Shared:
    """One value on the workers, and the calls that use it.

    Args:
        cluster: Where.
        value: Anything that can be pickled; kept here too, to be sent again.
    """

    def __init__(self, cluster: Cluster, value: Any) -> None:
        self.value = value
        self._cluster = cluster
        self._lock = threading.Lock()
        self._sendings = 0
        self._held: Any = None
        self._send(0)

    def call(self, function: Callable[[Any, T], R], item: T) -> R:
        """`function(value, item)` on a worker; threads may call at once."""
        return next(iter(self.map(function, [item])))

    def map(self, function: Callable[[Any, T], R], items: Iterable[T], *, bulky: bool = False) -> Iterator[R]:
        """`function(value, item)` for each item, in order; no more are out at once than keep the workers busy.

        Args:
            bulky: The items are data, which go to the workers past the scheduler's list of calls.

        Raises:
            ServiceError: The cluster is gone, or a call has ended several workers.
        """
        out: deque[_Sent[T]] = deque()
        source, most = iter(items), 2 * self._cluster.threads
        try:
            while True:
                while len(out) < most and (item := next(source, _END)) is not _END:
                    out.append(self._submit(function, item, bulky))  # type: ignore[arg-type]
                if not out:
                    return
                yield self._receive(function, out[0], bulky)
                out.popleft()
        finally:
            for sent in out:
                sent.future.cancel()

    def release(self) -> None:
        """Let the workers forget the value."""
        self._held = None

    def _submit(self, function: Callable[[Any, T], R], item: T, bulky: bool) -> _Sent[T]:
        client, held, number = self._cluster.client, self._held, self._sendings
        given = client.scatter(item, hash=False) if bulky else item
        future = client.submit(_call, function, environment_fingerprint(), held, given, pure=False)
        return _Sent(item, future, number)

    def _receive(self, function: Callable[[Any, T], R], sent: _Sent[T], bulky: bool) -> R:
        from distributed import KilledWorker

        while True:
            started = time.monotonic()
            while not _is_over(sent.future):
                self._cluster.require_alive(started)
            try:
                result: R = self._cluster.result(sent.future)
                return result
            except CancelledError:  # what the call needs died with its last holder
                self._cluster.require_alive(started)
                self._send(sent.number)
                again = self._submit(function, sent.item, bulky)
                sent.future, sent.number = again.future, again.number
            except KilledWorker as error:
                raise ServiceError(
                    f"workers of {self._cluster.address} died again and again at the same call: {error}",
                    "Give the workers more memory, and look into their logs",
                ) from error

    def _send(self, known: int) -> None:
        """Send the value to every worker, unless somebody has since `known` was the number of sendings."""
        with self._lock:
            if known != self._sendings:
                return
            if self._sendings == _SENDINGS:
                raise ServiceError(
                    f"all workers of {self._cluster.address} died {_SENDINGS} times",
                    "Give the workers more memory, and look into their logs",
                )
            try:
                self._held = self._cluster.client.scatter(
                    self.value, broadcast=True, hash=False, timeout=self._cluster.patience_seconds
                )
            except TimeoutError as error:
                raise ServiceError(
                    f"the Dask cluster at {self._cluster.address} has no worker that takes data",
                    "Start workers and run the same again: trials that ended are not evaluated twice",
                ) from error
            self._sendings += 1


@dataclass
class _Sent(Generic[T]):
    """A call that is out: its item, to send it again, and which sending of the shared value it was given."""

    item: T
    future: Any
    number: int


def _is_over(future: Any) -> bool:
    """Whether the future is over, after a short wait for it."""
    over = threading.Event()
    future.add_done_callback(lambda _: over.set())
    return over.wait(_POLL_SECONDS) or future.done()


def _call(function: Callable[[Any, T], R], expected: dict[str, str], shared: Any, item: T) -> R:
    """On a worker: one call, if the worker has the caller's versions. Other versions give other numbers."""
    found = _fingerprint()
    if found["hash"] != expected["hash"]:
        from distributed import get_worker

        apart = [f"{name} {found.get(name)} instead of {value}" for name, value in expected.items()
                 if name != "hash" and found.get(name) != value]  # fmt: skip
        raise ServiceError(
            f"the Dask worker {get_worker().address} has {', '.join(apart)}",
            "Start the workers from the image or environment that this process runs in",
        )
    with _thread_share():
        return function(shared, item)


def _agree(_: Any, __: Any) -> None:
    """What the first call does: nothing but show that a worker is there."""


def _evaluate(evaluate: Evaluate, parameters: Parameters) -> Evaluation:
    return evaluate(parameters)


@cache
def _fingerprint() -> dict[str, str]:
    return environment_fingerprint()


@contextlib.contextmanager
def _thread_share() -> Iterator[None]:
    """This call's share of the worker's cores, unless the worker was told a number, as Dask's nanny does."""
    from distributed import get_worker
    from threadpoolctl import threadpool_limits

    if "OMP_NUM_THREADS" in os.environ:
        yield
        return
    share = max(1, joblib.cpu_count() // get_worker().state.nthreads)
    with threadpool_limits(share, user_api="openmp"):
        yield


def _address(given: str) -> str:
    """The address, or what the environment variable holds that it names."""
    if not given.startswith("$"):
        return given
    name = given.removeprefix("$")
    if not (found := os.environ.get(name)):
        raise DefinitionError(f"runner.dask: the environment variable {name} is not set", "Put the address there")
    return found


def _local_cluster() -> Any:
    """One process a core on this machine; nothing listens beyond it."""
    from distributed import LocalCluster

    nowhere = "127.0.0.1:0"
    return LocalCluster(
        n_workers=joblib.cpu_count(), threads_per_worker=1, host="127.0.0.1", dashboard_address=nowhere,
        worker_dashboard_address=nowhere,
    )  # fmt: skip
