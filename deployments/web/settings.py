"""How the page runs, from the environment: who may come in, and for how long. Its address is among the settings."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal, get_args

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from perennial.errors import DefinitionError
from perennial.serving.settings import is_loopback

# Each may do what those before it may.
Role = Literal["view", "label", "approve", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)
_PREFIX = "PERENNIAL_WEB_"
_OTHERS = ("PORT",)
_TOKEN = re.compile(r"(view|label|approve|admin):([A-Za-z0-9][A-Za-z0-9._@-]{0,63}):([0-9a-f]{64})")


class WebSettings(BaseSettings):
    """The settings; each is read from `PERENNIAL_WEB_` and its name in capitals."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True, extra="forbid")

    tokens: str = Field(
        "",
        repr=False,
        description="role:name:sha256 of each person's token, separated by commas; roles: view, label, approve, admin.",
    )
    session_hours: float = Field(12.0, gt=0, le=24 * 30, description="After so long one must sign in again.")
    hosts: str = Field("", description="Names that the page is reached by through a proxy, separated by commas.")
    secure: bool = Field(False, description="The page is reached by HTTPS only: its cookie is sent by nothing else.")
    acts_a_minute: int = Field(30, ge=1, description="So many acts, and attempts to sign in, a minute and address.")

    @field_validator("tokens")
    @classmethod
    def _well_formed(cls, value: str) -> str:
        for part in _parts(value):
            if not _TOKEN.fullmatch(part):
                raise ValueError("a token is ROLE:NAME:SHA256; `perennial web --new-token ROLE NAME` makes one")
        return value


def load_web_settings() -> WebSettings:
    """The settings of this process's environment.

    Raises:
        DefinitionError: A variable's value breaks its rule, or a setting is misspelt; a token's value is not told.
    """
    known = {name.upper() for name in WebSettings.model_fields} | set(_OTHERS)
    for name in sorted({item.removeprefix(_PREFIX) for item in os.environ if item.startswith(_PREFIX)} - known):
        if near := get_close_matches(name, known, n=1, cutoff=0.7):
            raise DefinitionError(f"there is no setting {_PREFIX}{name}", f"Did you mean {_PREFIX}{near[0]}?")
    try:
        return WebSettings()
    except ValidationError as error:
        item = error.errors()[0]
        name = _PREFIX + "_".join(str(part) for part in item["loc"]).upper()
        value = "" if "TOKENS" in name else f" = {item.get('input')!r}"
        raise DefinitionError(f"{name}{value}: {item['msg']}", f"Correct or unset {name}") from error


@dataclass(frozen=True)
class Person:
    """Who looks or acts; without tokens (on loopback) nobody is known by name, and everything is allowed."""

    name: str
    role: Role

    def may(self, role: Role) -> bool:
        return ROLES.index(self.role) >= ROLES.index(role)


class People:
    """Whom the tokens name. Tokens are long and random, so that their plain SHA-256 can't be reversed."""

    def __init__(self, tokens: str) -> None:
        self._known: dict[str, Person] = {}
        for part in _parts(tokens):
            role, name, digest = part.split(":")
            self._known[digest] = Person(name, role)  # type: ignore[arg-type]

    @property
    def needed(self) -> bool:
        return bool(self._known)

    def enter(self, token: str) -> str | None:
        """The digest by which a session names a token's person; None of an unknown token."""
        digest = hashlib.sha256(token.strip().encode("utf-8", "surrogateescape")).hexdigest()
        return next((known for known in self._known if hmac.compare_digest(known, digest)), None)

    def named(self, digest: object) -> Person | None:
        """The person of a session; None where its token is not among the settings any more."""
        return self._known.get(digest) if isinstance(digest, str) else None


def new_token(role: str, name: str) -> tuple[str, str]:
    """A fresh token, and its part of PERENNIAL_WEB_TOKENS.

    Raises:
        DefinitionError: The name can't be told from the other parts.
    """
    token = secrets.token_urlsafe(32)
    entry = f"{role}:{name}:{hashlib.sha256(token.encode()).hexdigest()}"
    if not _TOKEN.fullmatch(entry):
        raise DefinitionError(f"{name!r} is no name for a token", "Use letters, digits, dots, dashes and @, at most 64")
    return token, entry


def check_exposure(host: str, people: People) -> None:
    """Refuse to be reachable by others without tokens.

    Raises:
        DefinitionError: The host is not loopback and there are no tokens.
    """
    if not is_loopback(host) and not people.needed:
        raise DefinitionError(
            f"host {host} can be reached by other machines, but PERENNIAL_WEB_TOKENS has no token",
            "Make one with `perennial web --new-token admin NAME`, or open the page on 127.0.0.1",
        )


def _parts(value: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()]
