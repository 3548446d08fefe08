"""What processes find around them: proxies, import paths, the collector. The one maker of child environments.

Nothing here knows a setting, a server or a model, so that every process can begin with it.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Mapping, MutableMapping
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
# What a server of ours may bind to, and what people write for it.
LOOPBACK = ("127.0.0.1", "localhost", "::1", "0.0.0.0", "::")  # noqa: S104 - names, nothing is bound here


def collect_seldom() -> None:
    """Let the collector look for rubbish seldom, and no more at the process's end.

    Of the start of a process that imports all, it takes a tenth; and at the end Python looks through all objects again,
    for what the system takes back at once. For processes that are ours: in a notebook's, or a library's user's, it is
    not ours to choose.
    """
    gc.set_threshold(50_000, 20, 20)
    end_uncollected()


def end_uncollected() -> None:
    """Let this process end without a last collection."""
    atexit.unregister(gc.freeze)  # once, however often it is asked
    atexit.register(gc.freeze)


def python_command(module: str, *arguments: str) -> tuple[str, ...]:
    """The command that runs a module with this Python; a file of its name in the current folder is not taken for it."""
    return (sys.executable, "-P", "-m", module, *arguments)


def child_environment(
    variables: Mapping[str, str] | None = None, inherited: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The environment of a process that we start: loopback unproxied, imports from this program, not from where it is.

    Args:
        variables: On top of what is inherited.
        inherited: By default this process's own.
    """
    environment = {**(os.environ if inherited is None else inherited), **(variables or {})}
    spare_loopback(environment)
    given = environment.get("PYTHONPATH", "").split(os.pathsep)
    # An empty part would be the current folder.
    environment["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([str(_ROOT), *(part for part in given if part)]))
    environment["PYTHONSAFEPATH"] = "1"
    return environment


def spare_loopback(environment: MutableMapping[str, str]) -> None:
    """Where the environment names a proxy, keep it from being asked for this machine's own servers.

    `requests`, `httpx`, `websockets` and urllib all heed NO_PROXY, the last one its small letters first. Without a
    proxy nothing is set: on macOS the variable alone would hide the system's own settings.
    """
    if not proxies(environment):
        return
    given = [name.strip() for key in ("no_proxy", "NO_PROXY") for name in environment.get(key, "").split(",")]
    own = [*LOOPBACK, environment.get("PERENNIAL_HOST", "")]
    value = ",".join(dict.fromkeys(name for name in (*given, *own) if name))
    environment["no_proxy"] = environment["NO_PROXY"] = "*" if "*" in given else value


def proxies(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that name a proxy, with their values."""
    return {
        name: value
        for name, value in environment.items()
        if name.lower() in ("http_proxy", "https_proxy", "all_proxy", "ws_proxy", "wss_proxy", "socks_proxy") and value
    }
