"""Whether a fresh process, as the API is one, loads a version and answers its golden rows. What follows is not decided.

`python -m perennial.serving.versions.proving` is a process that has imported what the API has, and nothing of a team's.
It reads a request a line and forks for each, so that a proof costs no start of a process; it ends with its input.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from perennial.definition import ModelDefinition
from perennial.errors import PerennialError, RegistryError
from perennial.serving.versions.cache import GOLDEN_FILE
from perennial.surroundings import child_environment, collect_seldom, python_command

_SECONDS = 300.0
_REMEDY = "The champion stays. What the model predicts by must be in its attributes, its code in the estimator's file"


@dataclass(frozen=True)
class Proven:
    """What the other process found.

    Attributes:
        rows: Golden rows answered.
        difference: The largest between golden and recomputed scores.
        fast_path: What answers small requests there.
        seconds: How long loading and checking took.
    """

    rows: int
    difference: float
    fast_path: str
    seconds: float


def prove(definition: ModelDefinition, *, model: Path, golden: Path, digest: str, version: int = 0) -> Proven:
    """Load a version in a fresh process, as the API would, and let it answer its golden rows there.

    Args:
        model: The folder of the model's files.
        golden: The parquet of its golden rows.
        digest: Of the model's files.

    Raises:
        RegistryError: It can't be loaded there, or answers other than it was trained; the reason is given.
    """
    with tempfile.TemporaryDirectory(prefix="perennial-proof-") as name:
        folder = Path(name)
        shutil.copytree(model, folder / "model")
        shutil.copy2(golden, folder / GOLDEN_FILE)
        request = {
            "definition": definition.model_dump(mode="json", exclude_unset=True),
            "path": str(definition.path or ""), "folder": name,
            "manifest": {"model": definition.name, "version": version, "digest": digest},
        }  # fmt: skip
        answer = _prover().ask(request)
    if problem := answer.get("problem"):
        raise RegistryError(f"a fresh process can't answer with the model: {problem}", answer.get("remedy") or _REMEDY)
    return Proven(**answer["proven"])


class _Prover:
    """The process that proves, and the two ends of its pipes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        self._process = subprocess.Popen(  # noqa: S603 - our own module, arguments as a list
            python_command("perennial.serving.versions.proving"), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self._errors, env=child_environment({"OMP_NUM_THREADS": "1"}),  # as the API's workers
        )  # fmt: skip
        self.owner = os.getpid()

    @property
    def alive(self) -> bool:
        return self.owner == os.getpid() and self._process.poll() is None

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to one request; a process that died or hangs is an answer, too."""
        with self._lock:
            try:
                stdin, stdout = self._process.stdin, self._process.stdout
                assert stdin is not None
                assert stdout is not None
                stdin.write(json.dumps(request).encode() + b"\n")
                stdin.flush()
                if not select.select([stdout], [], [], _SECONDS)[0]:
                    self.stop()
                    return {"problem": f"it gave no answer within {_SECONDS:g} s"}
                line = stdout.readline()
            except BrokenPipeError:
                line = b""
            if not line:
                self._process.wait()  # all that it had to say is written
                last = self._last_words()
                self.stop()
                return {"problem": f"it ended at its start: {last}", "remedy": "Run `make setup`"}
            found: dict[str, Any] = json.loads(line)
            return found

    def stop(self) -> None:
        """End the process, if it is ours: a forked child has only a copy of its handle."""
        if self.owner != os.getpid():
            return
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        self._process.kill()
        self._process.wait()

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else "no word"


_STARTING = threading.Lock()
_running: _Prover | None = None


def _prover() -> _Prover:
    global _running
    with _STARTING:
        if _running is None or not _running.alive:
            _running = _Prover()
            atexit.register(_running.stop)
        return _running


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    """What one proof found, in a process of its own."""
    from perennial.serving.versions.model import load_version

    started = time.perf_counter()
    try:
        definition = ModelDefinition.model_validate(request["definition"])
        if request["path"]:
            definition = definition.model_copy(update={"path": Path(request["path"])})
        loaded = load_version(Path(request["folder"]), request["manifest"], definition)
    except PerennialError as error:
        return {"problem": error.problem, "remedy": error.remedy}
    except Exception as error:  # noqa: BLE001 - whatever a team's own type raises where it is loaded
        return {"problem": f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"}
    proven = Proven(
        loaded.golden_rows, loaded.golden_difference, loaded.scorer.proof.kind, time.perf_counter() - started
    )
    return {"proven": asdict(proven)}


def _serve() -> None:
    """Answer requests, each in a fork: what one loads, the next does not find."""
    channel = os.dup(1)
    os.dup2(2, 1)  # a team's code may print
    import skops.io  # noqa: F401 - it looks through all of scikit-learn for a second, once here instead of in each fork

    import perennial.serving.versions.model  # noqa: F401 - what the API has imported, too

    for line in sys.stdin:
        child = os.fork()
        if not child:
            status = 1
            try:
                os.write(channel, json.dumps(_answer(json.loads(line))).encode() + b"\n")
                status = 0
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        if status:
            problem = f"it was ended by signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "it failed"
            os.write(channel, json.dumps({"problem": problem}).encode() + b"\n")


if __name__ == "__main__":
    collect_seldom()
    _serve()
