"""Whose server answers: an address that is written down is a claim, and is proven on every use. Nothing is started.

`perennial up` writes its Prefect server's address into the home. The note outlives a kill -9 and a reboot, and a copy
of the home has it too; meanwhile another home's server may have taken the port. A Prefect server tells in which folder
it keeps its state: that is this home's, or the server is not ours.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from perennial.errors import ServiceError
from perennial.operate.asking import ANSWER_SECONDS, AwayError, ask, ask_json
from perennial.redaction import redact
from perennial.settings import Settings

_PROOF_SECONDS = 20.0
# Prefect's SQLite waits a minute for its lock, and may answer nobody meanwhile. A server that is gone refuses at once.
BUSY_SECONDS = 90.0


@dataclass(frozen=True)
class Claim:
    """An address at which this home's Prefect server is said to answer, and what was found there.

    Attributes:
        url: Its /api address; None where nobody says that there is one.
        refuted: Why the address is not to be used; empty where it is.
        foreign: Whether somebody else's server answers there.
        busy: Whether somebody listens there, who gave no answer in time: it may be this home's.
    """

    url: str | None
    refuted: str = ""
    foreign: bool = False
    busy: bool = False


def publish_prefect(settings: Settings, url: str) -> Path:
    """Write down the address of this home's lasting server, for `running_prefect`."""
    path = note_of(settings)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps({"url": url, "pid": os.getpid()}), encoding="utf-8")
    temporary.replace(path)
    return path


def withdraw_prefect(settings: Settings) -> None:
    """Forget the address."""
    note_of(settings).unlink(missing_ok=True)


def note_of(settings: Settings) -> Path:
    """Where the address is written down."""
    return settings.home_path / "prefect" / "server.json"


def running_prefect(settings: Settings) -> str | None:
    """The /api address of a healthy Prefect server of this home, or None.

    A server on the usual port may be another home's: only an address that was given (PERENNIAL_PREFECT_API_URL)
    counts as it is, and the one that `perennial up` wrote down here if the server proves to be this home's.
    """
    claim = prefect_claim(settings, ANSWER_SECONDS)
    return None if claim.refuted else claim.url


def prefect_claim(settings: Settings, seconds: float = BUSY_SECONDS) -> Claim:
    """The address that is said to be this home's, tried now.

    Args:
        seconds: How long a server that listens may take to answer.
    """
    url = settings.prefect_api_url
    if url is not None:
        try:
            ask(f"{url.rstrip('/')}/health", seconds=seconds)
        except ServiceError as error:
            return Claim(url, redact(error.problem), busy=isinstance(error, AwayError) and error.busy)
        return Claim(url)
    note = note_of(settings)
    try:
        url = str(json.loads(note.read_text(encoding="utf-8"))["url"])
    except OSError:
        return Claim(None)
    except (ValueError, KeyError, TypeError):
        return Claim(None, f"{note} can't be read")
    try:
        ask(f"{url.rstrip('/')}/health", seconds=seconds)
        refuted = not_of_home(url, settings.home_path)
    except AwayError as error:
        if error.busy:
            return Claim(url, f"the server at {url}, which {note} names, listens and gives no answer", busy=True)
        return Claim(url, f"no server answers at {url}, which {note} names")
    except ServiceError:
        return Claim(url, f"no server answers at {url}, which {note} names")
    return Claim(url, refuted, foreign=bool(refuted))


def not_of_home(url: str, home: Path, seconds: float = _PROOF_SECONDS) -> str:
    """Why the Prefect server at an /api address is not this home's; empty where it proves to be.

    Args:
        seconds: How long it may take. Its first answer takes a second of its processor; later ones milliseconds.

    Raises:
        AwayError: Nobody answers in time.
    """
    try:
        told = ask_json(f"{url.rstrip('/')}/admin/settings", seconds=seconds)
        folder = Path(told["home"])
    except AwayError:
        raise
    except (ServiceError, KeyError, TypeError) as error:
        detail = error.problem if isinstance(error, ServiceError) else "it is no Prefect server"
        return f"who answers at {url} does not prove to be the server of {home}: {detail}"
    return "" if folder == home / "prefect" else f"at {url} answers the server of {folder.parent}, not that of {home}"
