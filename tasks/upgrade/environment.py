"""An environment with the packages of a lock, made once, kept in the home while it is of use. It measures nothing."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from perennial.errors import ConflictError, DataError, ServiceError
from perennial.redaction import redact
from perennial.state.files import exclusive
from perennial.surroundings import child_environment, python_command

FOLDER = "environments"
_DONE = "complete.json"
_INSTALL_SECONDS = 3600.0
UNUSED = timedelta(days=30)


@dataclass(frozen=True)
class Pin:
    """A package that a lock installs here: its name, its version, and its lines, hashes included."""

    name: str
    version: str
    lines: str


@dataclass(frozen=True)
class Lock:
    """A lock as it is read for this interpreter.

    Attributes:
        pins: By normalised name.
        options: Its lines for pip itself, such as --find-links.
    """

    pins: dict[str, Pin]
    options: tuple[str, ...]

    def other(self) -> dict[str, tuple[str, str]]:
        """The packages whose version here is another: ours (or none), and the lock's."""
        found = {}
        for pin in self.pins.values():
            ours = _installed(pin.name)
            if ours != pin.version:
                found[pin.name] = (ours or "none", pin.version)
        return dict(sorted(found.items()))


def read_lock(path: Path) -> Lock:
    """The lock's packages, of this interpreter and machine.

    Raises:
        DataError: It can't be read, or something in it is not pinned by ==.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the lock {path} can't be read: {error}", "Name a requirements file") from error
    pins: dict[str, Pin] = {}
    options: list[str] = []
    for lines in _logical(text):
        if lines.lstrip().startswith("-"):
            options.append(_absolute(lines.strip(), path.parent))
            continue
        said = lines.replace("\\\n", " ").split(" --hash")[0].split(" #")[0].strip()
        try:
            requirement = Requirement(said)
        except InvalidRequirement as error:
            raise DataError(
                f"{path}: {said[:80]!r} is no requirement: {error}", "Give a lock: NAME==VERSION"
            ) from error
        exact = [item.version for item in requirement.specifier if item.operator == "==" and "*" not in item.version]
        if len(exact) != 1 or len(requirement.specifier) != 1:
            raise DataError(f"{path}: {said[:80]!r} is not pinned", "Give a lock, whose lines are NAME==VERSION")
        if requirement.marker is None or requirement.marker.evaluate():
            name = canonicalize_name(requirement.name)
            pins[name] = Pin(name, exact[0], lines)
    if not pins:
        raise DataError(f"the lock {path} names no package", "Give a lock, whose lines are NAME==VERSION")
    return Lock(pins, tuple(options))


def environment_of(lock: Lock, home: Path, *, whole: bool) -> Path:
    """The Python of an environment in which the packages are the lock's.

    What the lock has in the version that is here already is shared with this installation, as is what it does not
    name; only the rest is installed. `whole` installs all of the lock, and shares nothing.

    Raises:
        ServiceError: pip or venv failed; its last words are told.
        ConflictError: Another process makes the same environment.
    """
    wanted = lock.pins if whole else {name: lock.pins[name] for name in lock.other()}
    said = json.dumps([sorted((pin.name, pin.version) for pin in wanted.values()), whole, _own_places()])
    name = f"{hashlib.sha256(said.encode()).hexdigest()[:16]}-py{platform.python_version()}"
    folder = home / FOLDER / name
    python = folder / "bin" / "python"
    with exclusive(home / FOLDER, name, wait_seconds=_INSTALL_SECONDS, busy="another process makes this environment"):
        if (folder / _DONE).exists():
            (folder / _DONE).touch()  # used now: its time to stay starts anew
            return python
        shutil.rmtree(folder, ignore_errors=True)  # of one that was killed
        # This installation's own pip, where it has one, spares the environment one of its own.
        own_pip = find_spec("pip") is not None
        _run(python_command("venv", *(["--without-pip"] if own_pip else []), str(folder)), "make an environment")
        if wanted:
            listed = folder / "requirements.txt"
            listed.write_text("\n".join([*lock.options, *(pin.lines for pin in wanted.values())]) + "\n", "utf-8")
            pip = python_command("pip", "--python", str(python)) if own_pip else (str(python), "-P", "-m", "pip")
            told = ("--no-deps", "--disable-pip-version-check", "--quiet", "--requirement", str(listed))
            _run((*pip, "install", *told), "install the lock's packages", own=True)
        if not whole:
            (_site_packages(python) / "zz-shared.pth").write_text("\n".join(_own_places()) + "\n", "utf-8")
        (folder / _DONE).write_text(json.dumps({pin.name: pin.version for pin in wanted.values()}), "utf-8")
    return python


def forget_unused(home: Path, *, used: Path, now: datetime) -> list[str]:
    """Remove the environments, of up to some gigabytes each, that no check has used for `UNUSED`; their names.

    Args:
        used: The Python of the one in use now, which stays.
    """
    gone = []
    for folder in sorted(path for path in (home / FOLDER).iterdir() if path.is_dir() and path != used.parent.parent):
        with (
            contextlib.suppress(ConflictError),  # it is being made, or taken into use
            exclusive(home / FOLDER, folder.name, wait_seconds=0, busy="another process makes this environment"),
        ):
            mark = folder / _DONE
            written = (mark if mark.exists() else folder).stat().st_mtime
            if datetime.fromtimestamp(written, UTC) <= now - UNUSED:
                mark.unlink(missing_ok=True)
                shutil.rmtree(folder)
                gone.append(folder.name)
    return gone


def _own_places() -> list[str]:
    return list(dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib")))


def _site_packages(python: Path) -> Path:
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return Path(_run((str(python), "-I", "-c", code), "look at an environment", own=True).strip())


def _run(command: tuple[str, ...], what: str, *, own: bool = False) -> str:
    environment = child_environment()
    if own:  # the environment's own packages alone: pip would take ours for its own
        environment.pop("PYTHONPATH", None)
    run = subprocess.run(  # noqa: S603 - arguments as a list
        command, env=environment, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False
    )
    if run.returncode:
        told = redact(" ".join((run.stderr or run.stdout).split())[-400:])
        raise ServiceError(f"can't {what}: {told}", "Look at the lock, and at the package index (PIP_INDEX_URL)")
    return run.stdout


def _logical(text: str) -> Iterator[str]:
    """The lines that belong together, without comments and empty ones."""
    held: list[str] = []
    for line in text.splitlines():
        if not held and (not line.strip() or line.lstrip().startswith("#")):
            continue
        held.append(line)
        if not line.endswith("\\"):
            yield "\n".join(held)
            held = []
    if held:
        yield "\n".join(held).rstrip("\\")


def _absolute(option: str, folder: Path) -> str:
    """The paths of a lock start where it lies, not where pip is run."""
    name, _, value = option.replace("=", " ", 1).partition(" ")
    value = value.strip()
    if name in ("-f", "--find-links") and "://" not in value:
        return f"--find-links {(folder / os.path.expanduser(value)).resolve()}"  # noqa: PTH111
    return option


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
