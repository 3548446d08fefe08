"""The lock of the packages that serve a model, and whether this process runs on it. Installs and builds nothing.

Each registered version carries the lock that stood in the code when it was trained, with its digest and with how the
packages that trained it differed from it, if they did: so that an image can be built on the very same ones.
"""

from __future__ import annotations

import hashlib
import platform
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version

from perennial.settings import PROJECT_ROOT

LOCK_FILE = "requirements-serving.lock"
LOCK_TAG, DIFFERENCES_TAG, PYTHON_TAG = "lock", "lock_differences", "python"


@lru_cache(maxsize=1)
def serving_lock() -> str:
    """The checkout's lock; empty where the code was installed without it."""
    try:
        return (PROJECT_ROOT / LOCK_FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def digest(lock: str) -> str:
    """The lock's SHA-256 as hex."""
    return hashlib.sha256(lock.encode()).hexdigest()


def locked(lock: str) -> dict[str, str]:
    """The packages that a lock installs here, with their versions."""
    from packaging.requirements import Requirement

    found = {}
    for line in lock.splitlines():
        text = line.split("#")[0].removesuffix("\\").strip()
        if not text or text.startswith("--"):
            continue
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate():
            found[requirement.name] = next(iter(requirement.specifier)).version
    return found


def differences(lock: str) -> list[str]:
    """Where the packages of this process are not the lock's."""
    told = []
    for name, wanted in sorted(locked(lock).items()):
        try:
            found = version(name)
        except PackageNotFoundError:
            found = "none"
        if found != wanted:
            told.append(f"{name} {found} instead of {wanted}")
    return told


@lru_cache(maxsize=1)
def facts() -> dict[str, str]:
    """What a version's tags say of the packages that made it."""
    found = {PYTHON_TAG: platform.python_version()}
    if lock := serving_lock():
        found |= {LOCK_TAG: digest(lock), DIFFERENCES_TAG: ", ".join(differences(lock))[:4000]}
    return found
