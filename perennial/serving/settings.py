"""How the serving processes run: address, workers, limits, tokens, from the environment. Nothing about a model."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import re
import secrets
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Literal, get_args

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from perennial.errors import DefinitionError

Scope = Literal["predict", "label", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
_PREFIX = "PERENNIAL_SERVING_"
METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
SOCKET_VARIABLE, PARENT_VARIABLE = INTERNAL = (_PREFIX + "SOCKET", _PREFIX + "PARENT")  # from watcher to workers


_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s,*]+")


class ServingSettings(BaseSettings):
    """The settings; each is read from `PERENNIAL_SERVING_` and its name in capitals."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True, extra="forbid")

    tokens: str = Field(
        "", description="scope:sha256 of each token, separated by commas; scopes: predict, label, admin."
    )
    cors_origins: str = Field(
        "",
        description="Whose pages may ask from a browser: origins (https://app.example.org), separated by commas; or *.",
    )
    workers: int = Field(1, ge=1, le=256)
    most_body_bytes: int = Field(16 * 2**20, ge=1024)
    most_rows: int = Field(10_000, ge=1, description="In one request.")
    most_concurrent: int = Field(512, ge=1, description="Requests in work at once, per worker; more are told 429.")
    deadline_seconds: float = Field(30.0, gt=0, description="What takes longer is told 503.")
    drain_seconds: float = Field(20.0, gt=0, description="How long requests in work may take at a stop.")
    linger_seconds: float = Field(
        5.0, ge=0, description="How long at most, before that, a stop answers new requests until none come any more."
    )
    ship_seconds: float = Field(30.0, gt=0, description="How often the spool is committed to the tables, at least.")
    ship_rows: int = Field(10_000, ge=1, description="So many spooled rows are committed at once.")
    most_spool_bytes: int = Field(2**30, ge=4096, description="Of all spools together; beyond it rows are shed.")
    unknown_label_hours: float = Field(
        720.0, gt=0, description="How long truth of an id that is neither predicted nor ingested is kept."
    )
    compact_commits: int = Field(50, ge=2, description="After so many commits small files are merged.")
    poll_seconds: float = Field(0.25, gt=0, description="How often the manifests are looked at.")
    follow_seconds: float = Field(
        2.0, gt=0, description="How often shared tables (PERENNIAL_TABLES) are asked for a new champion."
    )
    registry_seconds: float = Field(10.0, gt=0, description="How often the registry is asked whether it answers.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="DEBUG logs each request, INFO those that were refused."
    )
    baked: Path | None = Field(
        None, description="A folder that `perennial containerize` made: its versions are served, no registry is asked."
    )

    @field_validator("log_level", mode="before")
    @classmethod
    def _any_case(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, value: str) -> str:
        for part in _parts(value):
            if part != "*" and not _ORIGIN.fullmatch(part):
                raise ValueError("an origin is SCHEME://HOST[:PORT] without a path, or * for any")
        return value

    @property
    def origins(self) -> list[str]:
        """The origins of `cors_origins`."""
        return _parts(self.cors_origins)

    @field_validator("tokens")
    @classmethod
    def _well_formed(cls, value: str) -> str:
        for part in filter(None, (item.strip() for item in value.split(","))):
            scope, _, digest = part.partition(":")
            if scope not in SCOPES or len(digest) != 64 or set(digest.lower()) - set("0123456789abcdef"):
                raise ValueError(
                    f"a token is SCOPE:SHA256 with a scope of {', '.join(SCOPES)}; see `serve --new-token`"
                )
        return value


def _parts(value: str) -> list[str]:
    return [part for item in value.split(",") if (part := item.strip())]


def load_serving_settings() -> ServingSettings:
    """The settings of this process's environment.

    Raises:
        DefinitionError: A variable's value breaks its rule, or a setting is misspelt; a token's value is not told.
    """
    _refuse_misspelt(os.environ)
    try:
        return ServingSettings()
    except ValidationError as error:
        item = error.errors()[0]
        name = _PREFIX + "_".join(str(part) for part in item["loc"]).upper()
        value = "" if "TOKENS" in name else f" = {item.get('input')!r}"
        raise DefinitionError(f"{name}{value}: {item['msg']}", f"Correct or unset {name}") from error


def _refuse_misspelt(environment: Mapping[str, str]) -> None:
    """A misspelt limit or token list must not be taken for none. Kubernetes makes names of its own: those are left."""
    known = {name.upper() for name in ServingSettings.model_fields}
    given = {name.removeprefix(_PREFIX) for name in environment if name.startswith(_PREFIX)}
    for name in sorted(given - known - {item.removeprefix(_PREFIX) for item in INTERNAL}):
        if near := get_close_matches(name, known, n=1, cutoff=0.7):
            raise DefinitionError(f"there is no setting {_PREFIX}{name}", f"Did you mean {_PREFIX}{near[0]}?")


class Tokens:
    """Who may do what. Tokens are long and random, so that their plain SHA-256 can't be reversed.

    Args:
        text: `ServingSettings.tokens`; without any token everything is allowed (on loopback only).
    """

    def __init__(self, text: str) -> None:
        self._digests: list[tuple[str, str]] = []
        for part in filter(None, (item.strip() for item in text.split(","))):
            scope, _, digest = part.partition(":")
            self._digests.append((scope, digest.lower()))

    @property
    def needed(self) -> bool:
        return bool(self._digests)

    def scopes(self, token: str) -> frozenset[str]:
        """What a token may do; nothing where it is unknown."""
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
        found = frozenset(scope for scope, known in self._digests if hmac.compare_digest(digest, known))
        return frozenset(SCOPES) if "admin" in found else found


def new_token() -> tuple[str, str]:
    """A fresh token and the digest to configure."""
    token = secrets.token_urlsafe(32)
    return token, hashlib.sha256(token.encode()).hexdigest()


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_exposure(host: str, tokens: Tokens) -> None:
    """Refuse to be reachable by others without tokens.

    Raises:
        DefinitionError: The host is not loopback and there are no tokens.
    """
    if not is_loopback(host) and not tokens.needed:
        raise DefinitionError(
            f"host {host} can be reached by other machines, but PERENNIAL_SERVING_TOKENS has no token",
            "Make one with `perennial serve --new-token predict`, or serve on 127.0.0.1",
        )
