"""The warm process of `perennial up`: all is imported, a child is forked for each command that is handed over.

`python -m perennial.warm HOME ENVIRONMENT_STAMP`. It only imports, listens and forks: no thread runs and no connection
is open when it does, so that a child starts as a fresh process would. The caller's side is perennial.operate.handover.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import gc
import importlib
import json
import os
import random
import select
import signal
import socket
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path
from typing import Any, NoReturn

from perennial.cli import main as run_command
from perennial.operate.handover import bind, code_stamp, place_stamp
from perennial.surroundings import collect_seldom, python_command

_ASK_SECONDS = 10.0
# The flows and what their steps import when they are first called.
_MODULES = (
    "perennial.commands.running", "perennial.commands.output", "perennial.commands.lifecycle.run",
    "perennial.commands.lifecycle.records", "perennial.commands.lifecycle.quarantine", "perennial.state.approval",
    "flows.ingest", "flows.score", "flows.monitor", "flows.retrain", "prefect.client.orchestration",
    "prefect.events.worker",
    "mlflow.sklearn", "mlflow.store.tracking.sqlalchemy_store", "mlflow.store.model_registry.sqlalchemy_store",
    "mlflow.store.artifact.local_artifact_repo", "skops.io", "obstore.store", "rich.table", "rich.progress",
    "sklearn.ensemble", "evidently.metrics", "evidently.presets", "plotly.offline", "plotly.graph_objs._figure",
    "psutil",
    "prefect.flow_engine", "prefect.task_engine", "pyarrow.dataset", "opentelemetry.sdk.trace",
    "sqlalchemy.dialects.sqlite", "perennial.serving.versions.cache",
)  # fmt: skip


def warm_up() -> None:
    """Import all of it.

    Raises:
        RuntimeError: A library has started a thread, which no child would have.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in _MODULES:
            importlib.import_module(name)
    if threading.active_count() > 1:
        raise RuntimeError(f"threads run after the imports: {[item.name for item in threading.enumerate()]}")


def serve(home: Path, environment: str) -> None:
    """Take commands until SIGTERM; starts itself anew where the code has changed."""
    code = code_stamp()
    warm_up()
    stamps = [code, environment, place_stamp()]
    listener = bind(home)
    gc.collect()
    gc.freeze()  # a child's collections leave the shared pages alone
    wakeup, ended = os.pipe()
    os.set_blocking(ended, False)
    signal.set_wakeup_fd(ended)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    callers: dict[int, socket.socket] = {}
    print(f"taking commands in {home}", flush=True)
    while True:
        ready, _, _ = select.select([listener.fileno(), wakeup], [], [])
        if wakeup in ready:
            os.read(wakeup, 4096)
            taken = [_answer(callers.pop(pid), status) for pid, status in _ended(callers)]
            if not all(taken) and code_stamp() != code:
                print("the code has changed: starting anew", flush=True)
                listener.close()
                command = python_command("perennial.warm", *sys.argv[1:])
                os.execv(command[0], command)  # noqa: S606
        if listener.fileno() in ready:
            connection, _ = listener.accept()
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                signal.signal(signal.SIGINT, signal.default_int_handler)  # which a background process ignores
                for opened in (listener, *callers.values()):
                    opened.close()
                _attend(connection, stamps)
            callers[pid] = connection


def _ended(callers: dict[int, socket.socket]) -> list[tuple[int, int]]:
    found = []
    for pid in callers:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            found.append((pid, os.waitstatus_to_exitcode(status)))
    return found


_REFUSED = 75


def _answer(connection: socket.socket, code: int) -> bool:
    """Tell the caller its exit code, if the child lived to have one; whether the command had been taken."""
    with connection, contextlib.suppress(OSError):
        if 0 <= code != _REFUSED:
            connection.sendall(str(code).encode())
    return code != _REFUSED


def _attend(connection: socket.socket, stamps: list[str]) -> None:
    """In the child: become the caller's command, and end as it does."""
    request = _request(connection, stamps)
    if request is None:
        os._exit(_REFUSED)
    connection.settimeout(None)
    connection.sendall(b"+")
    threading.Thread(target=_obey, args=(connection,), name="perennial-signals", daemon=True).start()
    sys.argv = ["perennial", *request["arguments"]]
    try:
        status = run_command(request["arguments"])
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    end(status)


def end(status: int) -> NoReturn:
    """End as the interpreter does, up to the libraries' own C++ objects.

    Some are threads that the fork left behind, and their end would abort the process after all was done.
    """
    threading._shutdown()  # type: ignore[attr-defined]  # joins what is no daemon, as at any end
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # nobody reads any more
            stream.flush()
    os._exit(status)


def _request(connection: socket.socket, stamps: list[str]) -> dict[str, Any] | None:
    """Take over what the caller is; None where this process can't stand for one of the caller's."""
    connection.settimeout(_ASK_SECONDS)
    try:
        head, streams, _, _ = socket.recv_fds(connection, 8, 4)
        if len(head) < 8 or len(streams) < 4:
            return None
        length, text = array.array("Q", head)[0], bytearray()
        while len(text) < length:
            part = connection.recv(min(1 << 20, length - len(text)))
            if not part:
                return None
            text += part
        request: dict[str, Any] = json.loads(text.decode("utf-8", "surrogateescape"))
    except (OSError, ValueError):
        return None
    if request["stamps"] != stamps:
        return None
    for target, stream in enumerate(streams[:3]):
        os.dup2(stream, target)
    os.fchdir(streams[3])
    for stream in streams:
        os.close(stream)
    os.umask(request["umask"])
    os.nice(max(0, request["nice"] - os.nice(0)))
    os.environ.clear()
    os.environ.update(request["environment"])
    time.tzset()
    tempfile.tempdir = None
    random.seed()
    _open_streams(request["streams"])
    return request


def _open_streams(streams: list[tuple[str, str]]) -> None:
    """The standard streams anew, in the caller's encodings: the old ones know of another file."""
    for number, (name, mode, (encoding, errors)) in enumerate(
        zip(("stdin", "stdout", "stderr"), ("r", "w", "w"), streams, strict=True)
    ):
        by_line = 1 if name == "stderr" or os.isatty(number) else -1
        opened = open(number, mode, by_line, encoding=encoding, errors=errors, closefd=False)  # noqa: SIM115
        setattr(sys, name, opened)
        setattr(sys, f"__{name}__", opened)


def _obey(connection: socket.socket) -> None:
    """Pass on the caller's signals to the main thread; a caller who is gone ends it as a closed terminal would."""
    main_thread = threading.main_thread().ident
    assert main_thread is not None
    while True:
        try:
            numbers = connection.recv(16) or bytes([signal.SIGHUP])
        except OSError:
            numbers = bytes([signal.SIGHUP])
        for number in numbers:
            signal.pthread_kill(main_thread, number)
        if signal.SIGHUP in numbers:
            return


if __name__ == "__main__":
    collect_seldom()
    serve(Path(sys.argv[1]), sys.argv[2])
