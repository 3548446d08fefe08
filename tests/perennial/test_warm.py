"""A command that the warm process runs does what it would have done by itself: words, exit code, folder, signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from perennial.operate.handover import SOCKET, environment_stamp, hand_over

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(sys.platform != "linux", reason="elsewhere `perennial up` keeps no warm process"),
]

DEFINITION = """\
name: toy
task: classification
data: {source: {csv: toy.csv}, id: id, time: time, target: y}
features: {numeric: [x]}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("warm")
    (folder / "home").mkdir()
    (folder / "models").mkdir()
    (folder / "models" / "toy.yaml").write_text(DEFINITION)
    return folder / "home"


@pytest.fixture(scope="module")
def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "PERENNIAL_HOME": str(home), "PERENNIAL_MODELS": str(home.parent / "models")}


@pytest.fixture(scope="module", autouse=True)
def warm(home: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A warm process that was started with other models and from another folder than its callers'."""
    command = [sys.executable, "-m", "perennial.warm", str(home), environment_stamp(environment)]
    elsewhere = environment | {"PERENNIAL_MODELS": "/nowhere", "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL"}
    command = [
        "bash",
        "-c",
        'trap "" INT; exec "$@"',
        "bash",
        *command,
    ]  # as of an `up` that a script put into the background
    with (home / "log").open("w") as log, subprocess.Popen(command, env=elsewhere, stdout=log, stderr=log) as process:
        try:
            deadline = time.monotonic() + 280
            while not (home / SOCKET).exists():
                assert process.poll() is None, (home / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.1)
            yield process
        finally:
            process.terminate()


def handing(
    home: Path, environment: dict[str, str], *arguments: str, folder: Path | None = None
) -> subprocess.Popen[str]:
    """A process that hands the command over and prints what came of it; it has no other way to run it."""
    code = "import sys; from pathlib import Path; from perennial.operate.handover import hand_over; "
    code += "print('code', hand_over(Path(sys.argv[1]), sys.argv[2:]))"
    return subprocess.Popen(
        [sys.executable, "-c", code, str(home), *arguments], env=environment, cwd=folder, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip


def test_words_and_models_are_the_callers(home: Path, environment: dict[str, str]) -> None:
    told, complaints = handing(home, environment, "models", "--json").communicate()
    listed, _, code = told.rpartition("code ")
    assert [item["name"] for item in json.loads(listed)] == ["toy"]
    assert (code.strip(), complaints) == ("0", "")


@pytest.mark.parametrize(
    ("arguments", "code", "sign"),
    [(("ledger", "tay"), 1, "error: there is no model 'tay'. Did you mean toy?"), (("ledger",), 2, "Missing argument")],
)
def test_refusals_are_told_to_the_caller(
    home: Path, environment: dict[str, str], arguments: Sequence[str], code: int, sign: str
) -> None:
    told, complaints = handing(home, environment, *arguments).communicate()
    assert told == f"code {code}\n"
    assert sign in complaints


def test_paths_start_at_the_callers_folder(home: Path, environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("id,other\n1,2\n")
    _, complaints = handing(home, environment, "label", "toy", "labels.csv", folder=tmp_path).communicate()
    assert complaints == "error: the labels lack y. Give the columns id and y.\n"


def test_ctrl_c_reaches_the_command(home: Path, environment: dict[str, str], tmp_path: Path) -> None:
    assert ended_by(signal.SIGINT, home, environment, tmp_path) == (0, "code 130\n", "\ninterrupted\n")


def test_a_signal_to_end_ends_both(home: Path, environment: dict[str, str], tmp_path: Path) -> None:
    assert ended_by(signal.SIGTERM, home, environment, tmp_path) == (-signal.SIGTERM, "", "")


def test_a_killed_command_is_told(
    home: Path, environment: dict[str, str], tmp_path: Path, warm: subprocess.Popen[bytes]
) -> None:
    process, child = waiting(home, environment, tmp_path, warm.pid)
    os.kill(child, signal.SIGKILL)
    told, complaints = process.communicate(timeout=20)
    assert (told, "has ended" in complaints) == ("code 1\n", True)


def ended_by(
    number: int, home: Path, environment: dict[str, str], folder: Path
) -> tuple[int, str, str]:  # fmt: skip
    process, _ = waiting(home, environment, folder, None)
    process.send_signal(number)
    told, complaints = process.communicate(timeout=20)
    return process.returncode, told, complaints


def waiting(
    home: Path, environment: dict[str, str], folder: Path, parent: int | None
) -> tuple[subprocess.Popen[str], int]:
    """A command that waits for what nobody writes into a pipe, and the child that runs it."""
    pipe = folder / "labels.csv"
    os.mkfifo(pipe)
    process = handing(home, environment, "label", "toy", str(pipe))
    deadline, child = time.monotonic() + 30, 0
    while time.monotonic() < deadline:
        child = next((pid for pid in _children() if _waits_for_a_pipe(pid)), 0)
        if child:
            return process, child
        time.sleep(0.05)
    raise AssertionError(f"it does not wait: {process.communicate(timeout=5)}")


def _children() -> list[int]:
    import psutil

    return [
        child.pid
        for process in psutil.Process().children()
        if "perennial.warm" in process.cmdline()
        for child in process.children()
    ]


def _waits_for_a_pipe(pid: int) -> bool:
    return (
        "fifo" in Path(f"/proc/{pid}/wchan").read_text() or "wait_for_partner" in Path(f"/proc/{pid}/wchan").read_text()
    )


@pytest.mark.parametrize("changed", [{"PYTHONHASHSEED": "1"}, {"OMP_NUM_THREADS": "7"}])
def test_who_would_import_otherwise_runs_it_himself(
    home: Path, environment: dict[str, str], changed: dict[str, str]
) -> None:
    told, _ = handing(home, environment | changed, "models").communicate()
    assert told == "code None\n"


def test_without_a_warm_process_nothing_is_handed_over(tmp_path: Path) -> None:
    assert hand_over(tmp_path, ["models"]) is None
    (tmp_path / SOCKET).touch()
    assert hand_over(tmp_path, ["models"]) is None


def test_what_a_library_does_at_the_process_s_end_spoils_no_command() -> None:
    """A native library that aborts when the process ends, as one whose thread the fork left behind does."""
    code = """
import atexit, ctypes
from perennial.warm import end
libc = ctypes.CDLL(None)
libc.__cxa_atexit(ctypes.cast(libc.abort, ctypes.c_void_p), None, None)
atexit.register(print, "left in order")
print("done")
end(3)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (3, "done\nleft in order\n", "")
