"""Watches whom Python processes call: whoever is not on this machine is written down and refused. No tests."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

# As sitecustomize on PYTHONPATH, Python runs it at the start of every process; it sleeps without WATCH_LOG.
WATCH = """
import ipaddress, os, sys

def _watch(event, arguments):
    if event not in ("socket.connect", "socket.getaddrinfo") or not os.environ.get("WATCH_LOG"):
        return
    address = arguments[1] if event == "socket.connect" else arguments
    host = address[0] if isinstance(address, tuple) else ""
    if isinstance(host, bytes):
        host = host.decode()
    local = host in (None, "", "localhost", os.uname().nodename)
    if not local:
        try:
            local = ipaddress.ip_address(host).is_loopback or ipaddress.ip_address(host).is_unspecified
        except ValueError:
            pass
    with open(os.environ["WATCH_LOG"], "a") as log:
        log.write(f"{'local' if local else 'ABROAD'} {event} {host}\\n")
    if not local:
        raise OSError(f"watched: {host}")

sys.addaudithook(_watch)
"""


def watch(folder: Path) -> dict[str, str]:
    """The environment in which Python processes are watched; their calls are in FOLDER/calls.log."""
    folder.mkdir(parents=True)
    (folder / "sitecustomize.py").write_text(WATCH, encoding="utf-8")
    return {"PYTHONPATH": str(folder), "WATCH_LOG": str(folder / "calls.log")}


@cache
def watch_this_process() -> None:
    """The same for this process, whenever WATCH_LOG is in its environment."""
    exec(compile(WATCH, "watch", "exec"), {"sys": sys})


def calls(environment: dict[str, str]) -> list[str]:
    return Path(environment["WATCH_LOG"]).read_text(encoding="utf-8").splitlines()


def abroad(environment: dict[str, str]) -> list[str]:
    """Whom the processes would have called outside this machine.

    Raises:
        AssertionError: They called nobody at all: the watch was asleep.
    """
    found = calls(environment)
    assert any(line.startswith("local socket.connect 127.0.0.1") for line in found), "the watch saw nothing"
    return sorted({line for line in found if line.startswith("ABROAD")})
