"""The write-ahead spool: what was answered, appended to a local file before the answer leaves. It ships nothing.

Each process writes into a folder of its own, HOME/serving/spool/OWNER, whose lock it holds for life: whoever gets
the lock knows that the owner is dead and may ship what it left. An entry is one line of JSON; a line without its end
was never answered and is dropped. A segment's name is unique for ever and becomes the commit's key, so that a segment
is shipped once however often that is tried. A sealed segment is renamed, for others to see that nobody writes to it.
"""

from __future__ import annotations

import os
import secrets
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import msgspec
from filelock import FileLock, Timeout

_encode = msgspec.json.Encoder().encode
_SUFFIX = ".jsonl"
_SEALED = ".sealed.jsonl"
_CLAIM_SECONDS = 1.0
_LARGEST_PROBE = 2**20


class Segments(Protocol):
    """What shipping needs of a spool."""

    root: Path

    def seal(self, least_rows: int = 1, oldest_seconds: float = 0.0) -> None: ...
    def sealed(self) -> list[Path]: ...
    def orphans(self) -> Iterator[Path]: ...
    def measure(self) -> int: ...


class Spool:
    """This process's part of the spool.

    Args:
        root: HOME/serving/spool.
        most_bytes: Of all processes' segments together; beyond it entries are shed.
    """

    def __init__(self, root: Path, most_bytes: int) -> None:
        self.root = root
        self.owner = f"{time.time_ns():x}-{secrets.token_hex(4)}"
        self.folder = root / self.owner
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._segments: dict[str, _Segment] = {}
        self._number = 0
        self._own: FileLock | None = None
        self._claim_at = 0.0
        self.used_bytes = 0
        self.shed_rows = 0
        self.failing = ""
        self._refused_bytes = 1
        self._claim()
        self.measure()

    def _claim(self) -> bool:
        """Have a folder of one's own; False where the disk is full, to be tried again in a second."""
        if self._own is not None:
            return True
        if time.monotonic() < self._claim_at:
            return False
        # Locked before it gets its name: nobody may take it for a dead one's.
        staged = self.root / f".{self.owner}"
        try:
            staged.mkdir(parents=True, exist_ok=True)
            own = FileLock(staged / "owner.lock")
            own.acquire()
            staged.rename(self.folder)
        except OSError as error:
            self.failing = f"the spool can't be written: {error.strerror}"
            self._claim_at = time.monotonic() + _CLAIM_SECONDS
            return False
        self._own = own
        return True

    def append(self, model: str, entry: Any, rows: int) -> bool:
        """Write an entry for a model; False if it was shed (the disk or the bound is full)."""
        line = _encode(entry) + b"\n"
        with self._lock:
            self._refused_bytes = len(line)
            if self.used_bytes + len(line) > self._most_bytes:
                self.shed_rows += rows
                self.failing = f"the spool has reached its bound of {self._most_bytes:,} bytes"
                return False
            if not self._claim():
                self.shed_rows += rows
                return False
            try:
                segment = self._segments.get(model) or self._open(model)
                segment.write(line, rows)
            except OSError as error:
                self.shed_rows += rows
                self.failing = f"the spool can't be written: {error.strerror}"
                return False
            self.used_bytes += len(line)
            self.failing = ""
            return True

    def recheck(self) -> None:
        """See whether what failed is over, so that nobody has to write for it to be known; called every second."""
        with self._lock:
            if self._own is not None and not self.folder.is_dir():
                self._begin_anew()
            size, shed = self._refused_bytes, self.shed_rows
            if not self.failing or self.used_bytes + size > self._most_bytes or not self._claim():
                return
        try:
            with tempfile.TemporaryFile(dir=self.root, buffering=0) as probe:
                if probe.write(bytes(min(size, _LARGEST_PROBE))) < min(size, _LARGEST_PROBE):
                    return
        except OSError:
            return
        with self._lock:
            if self.shed_rows == shed:  # nothing was refused in the meantime
                self.failing = ""

    def pending_rows(self) -> int:
        """Rows in segments that are still being written."""
        return sum(segment.rows for segment in self._segments.values())

    def seal(self, least_rows: int = 1, oldest_seconds: float = 0.0) -> None:
        """Close the segments with so many rows or of that age, so that they can be shipped."""
        now = time.monotonic()
        with self._lock:
            for model, segment in list(self._segments.items()):
                if not segment.rows or (segment.rows < least_rows and now - segment.opened_at < oldest_seconds):
                    continue
                try:
                    segment.seal()
                except FileNotFoundError:
                    self._lose(segment)
                except OSError as error:  # still open, and to be tried again
                    self.failing = f"the spool can't be written: {error.strerror}"
                    continue
                del self._segments[model]

    def sealed(self) -> list[Path]:
        """Own segments that nobody writes to any more, oldest first."""
        # First the files, then who is being written to: a segment opened in between is in neither.
        found = sorted(self.folder.glob(f"*/*{_SUFFIX}"))
        with self._lock:
            current = {segment.path for segment in self._segments.values()}
        return [path for path in found if path not in current]

    def orphans(self) -> Iterator[Path]:
        """Segments of dead processes; see `dead_segments`."""
        return dead_segments(self.root, self.folder)

    def measure(self) -> int:
        """Count the bytes of all processes' segments anew."""
        self.used_bytes = measure(self.root)
        return self.used_bytes

    def close(self) -> None:
        """Seal everything and give up the ownership; what was not shipped is the next one's."""
        self.seal()
        if self._own is not None:
            _remove_empty(self.folder)
            self._own.release()

    def _begin_anew(self) -> None:
        """Somebody removed the folder: what is written to its files is lost."""
        for segment in self._segments.values():
            self._lose(segment)
        self._segments.clear()
        if self._own is not None:
            self._own.release()
        self._own, self._claim_at = None, 0.0

    def _lose(self, segment: _Segment) -> None:
        segment.close()
        self.shed_rows += segment.rows
        self.failing = f"{segment.path} was removed while it was being written"

    def _open(self, model: str) -> _Segment:
        self._number += 1
        folder = self.folder / model
        folder.mkdir(exist_ok=True)
        segment = _Segment(folder / f"{self.owner}-{self._number:08d}{_SUFFIX}")
        self._segments[model] = segment
        return segment


class _Segment:
    """One file that is being appended to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = 0
        self.opened_at = time.monotonic()
        self._size = 0
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)

    def write(self, line: bytes, rows: int) -> None:
        """Append a whole line or nothing.

        Raises:
            OSError: It could not be written; the file is as it was.
        """
        try:
            written = os.write(self._descriptor, line)
            if written != len(line):
                raise OSError(28, "no space left on the device")
        except OSError:
            os.ftruncate(self._descriptor, self._size)
            raise
        self._size += len(line)
        self.rows += rows

    def seal(self) -> None:
        """Rename and close it.

        Raises:
            OSError: It could not be renamed, and is open as before.
        """
        self.path.rename(self.path.with_name(self.path.name.removesuffix(_SUFFIX) + _SEALED))
        self.close()

    def close(self) -> None:
        os.close(self._descriptor)


def sealed_segments(root: Path) -> list[Path]:
    """The sealed segments of all processes, living or dead, oldest first."""
    return sorted(root.glob(f"[!.]*/*/*{_SEALED}"))


def dead_segments(root: Path, own: Path | None = None) -> Iterator[Path]:
    """Segments of dead processes, while their lock is held; empty folders of theirs are removed."""
    for folder in sorted(root.iterdir() if root.is_dir() else []):
        if folder == own or folder.name.startswith(".") or not folder.is_dir():
            continue
        lock = FileLock(folder / "owner.lock")
        try:
            lock.acquire(timeout=0)
        except (Timeout, OSError):
            continue
        try:
            yield from sorted(folder.glob(f"*/*{_SUFFIX}"))
            _remove_empty(folder)
        finally:
            lock.release()


def measure(root: Path) -> int:
    """The bytes of all processes' segments."""
    total = 0
    for path in root.glob(f"*/*/*{_SUFFIX}"):
        try:
            total += path.stat().st_size
        except OSError:
            continue  # shipped in between
    return total


def segment_key(path: Path) -> str:
    """The key of the commit that a segment becomes, sealed or not."""
    return f"spool:{path.name.partition('.')[0]}"


def read_segment(path: Path, decoder: msgspec.json.Decoder[Any] | None = None) -> tuple[list[Any], int]:
    """The whole entries of a segment, and how many lines were torn or unreadable."""
    decode = (decoder or msgspec.json.Decoder()).decode
    entries: list[Any] = []
    torn = 0
    data = path.read_bytes()
    for line in data.splitlines(keepends=True):
        try:
            if not line.endswith(b"\n"):
                raise ValueError("no end of line")
            entries.append(decode(line))
        except (msgspec.DecodeError, ValueError):
            torn += 1
    return entries, torn


def _remove_empty(folder: Path) -> None:
    for inner in [item for item in folder.iterdir() if item.is_dir()]:
        if not any(inner.iterdir()):
            inner.rmdir()
    if all(item.name == "owner.lock" for item in folder.iterdir()):
        (folder / "owner.lock").unlink(missing_ok=True)
        folder.rmdir()
