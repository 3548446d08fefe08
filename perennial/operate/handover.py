"""Handing a command over to the warm process of `perennial up`: the client's side. It imports little, and runs nothing.

A command spends most of its time importing. The warm process (perennial.warm) has done that; for each command it forks
a child, which takes over the caller's arguments, environment, folder, standard streams and signals. What could make
the child do other than a process of the caller's own would do, is part of three stamps: of the code, of the variables
that libraries read once, of machine and user. Where one differs, the command runs in the caller's process.
"""

from __future__ import annotations

import array
import contextlib
import hashlib
import json
import os
import signal
import socket
import stat
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from perennial.state.leases import machine

SOCKET = "commands.sock"
_PACKAGES = ("perennial", "tasks", "flows", "deployments")
# What is read when a library is imported, and not again.
_READ_ONCE = ("PYTHON", "LD_", "OMP_", "OPENBLAS_", "MKL_", "ARROW_", "MLFLOW_", "PREFECT_", "GX_", "MPL", "NUMBA_")
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_CONNECT_SECONDS, _TAKE_SECONDS = 1.0, 10.0


def environment_stamp(environment: Mapping[str, str]) -> str:
    """Names the variables that libraries read when they are imported."""
    once = sorted((name, value) for name, value in environment.items() if name.startswith(_READ_ONCE))
    return _digest(once)


def code_stamp() -> str:
    """Names the state of our files and of the installed packages: a warm process must not run what was replaced."""
    root = Path(__file__).resolve().parents[2]
    files: list[tuple[str, int, int]] = []
    for package in _PACKAGES:
        for folder, folders, names in os.walk(root / package):
            folders[:] = [name for name in folders if name != "__pycache__"]
            for name in names:
                if name.endswith(".py"):
                    path = f"{folder}/{name}"
                    found = os.stat(path)  # noqa: PTH116 - hundreds of them
                    files.append((path, found.st_mtime_ns, found.st_size))
    installed = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    packages = [(path, Path(path).stat().st_mtime_ns) for path in installed if Path(path).is_dir()]
    return _digest([sys.version, sys.prefix, sorted(files), packages])


def place_stamp() -> str:
    """Names the machine, the container and the user."""
    return _digest([machine(), os.getuid()])


def hand_over(home: Path, arguments: Sequence[str]) -> int | None:
    """Let the warm process of this home run a command; its exit code, or None where there is none that would.

    Ctrl-C and the signals to end are passed on.
    """
    if sys.platform != "linux" or None in (sys.stdin, sys.stdout, sys.stderr):
        return None
    connection = _connect(home)
    if connection is None:
        return None
    with connection:
        if not _ask(connection, arguments):
            return None
        with _passing_on(connection) as sent:
            code = _result(connection)
    if code is not None:
        return code
    for number in (signal.SIGTERM, signal.SIGHUP):  # it died of what was passed on: so does this process
        if number in sent:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
    print("error: the process of `perennial up` that ran this has ended. Look at what was done, then run it again",
          file=sys.stderr)  # fmt: skip
    return 1


def bind(home: Path) -> socket.socket:
    """The warm process's socket, for this user alone; what a killed one left is replaced."""
    listener = socket.socket(socket.AF_UNIX)
    before, mask = os.getcwd(), os.umask(0o077)  # noqa: PTH109
    try:
        os.chdir(home)  # a socket's path may have a hundred characters, a home's any number
        with contextlib.suppress(FileNotFoundError):
            os.unlink(SOCKET)  # noqa: PTH108
        listener.bind(SOCKET)
    finally:
        os.umask(mask)
        os.chdir(before)
    listener.listen(16)
    return listener


def _connect(home: Path) -> socket.socket | None:
    path = home / SOCKET
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            return None
        before = os.open(".", os.O_RDONLY)
    except OSError:
        return None
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(_CONNECT_SECONDS)
    try:
        os.chdir(home)
        connection.connect(SOCKET)
    except OSError:
        connection.close()
        return None
    finally:
        os.fchdir(before)
        os.close(before)
    return connection


def _ask(connection: socket.socket, arguments: Sequence[str]) -> bool:
    """Send the command with the standard streams; whether it was taken."""
    request = {
        "arguments": list(arguments),
        "environment": dict(os.environ),
        "stamps": [code_stamp(), environment_stamp(os.environ), place_stamp()],
        "umask": _umask(),
        "nice": os.nice(0),
        "streams": [(stream.encoding, stream.errors) for stream in (sys.stdin, sys.stdout, sys.stderr)],
    }
    text = json.dumps(request).encode("utf-8", "surrogateescape")
    connection.settimeout(_TAKE_SECONDS)
    folder = os.open(".", os.O_RDONLY)
    try:
        socket.send_fds(connection, [array.array("Q", [len(text)]).tobytes()], [0, 1, 2, folder])
        connection.sendall(text)
        return connection.recv(1) == b"+"
    except OSError:
        return False
    finally:
        os.close(folder)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _result(connection: socket.socket) -> int | None:
    """The exit code; None where the other end died."""
    connection.settimeout(None)
    try:
        answer = connection.recv(4)
    except ConnectionError:
        return None
    return int(answer) if answer else None


@contextlib.contextmanager
def _passing_on(connection: socket.socket) -> Iterator[set[int]]:
    """Send signals to the one at work, instead of dying of them; those that were sent."""
    sent: set[int] = set()

    def pass_on(number: int, _frame: FrameType | None) -> None:
        sent.add(number)
        with contextlib.suppress(OSError):
            connection.send(bytes([number]))

    heeded = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, pass_on) for number in heeded}
    try:
        yield sent
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode("utf-8", "surrogateescape")).hexdigest()[:16]
