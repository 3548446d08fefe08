"""What the server does on its own, as `automations.yaml` says it: pydantic models, unknown keys forbidden. No server.

The file lies in a folder of models; without one, dead runs are found and crashed ones re-run, and nobody is told.
Secrets are never in it: it names the environment variables that hold them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from perennial.definition import AUTOMATIONS_FILE, Duration, Section, read_mapping
from perennial.errors import DefinitionError

Occasion = Literal["repair", "refused", "waiting", "promoted", "rolled-back", "alert", "failed", "crashed"]
_NAME = r"^[a-z][a-z0-9-]{0,40}$"
_VARIABLE = r"^[A-Z][A-Z0-9_]*$"
LEAST_SILENCE, LEAST_START = timedelta(seconds=60), timedelta(minutes=5)


class Zombies(Section):
    """Runs whose process and supervisor died together: nobody else would notice."""

    after: Duration = Field(timedelta(seconds=90), description="Without a heartbeat for so long a run is Crashed.")

    @field_validator("after")
    @classmethod
    def _longer_than_a_heartbeat(cls, value: timedelta) -> timedelta:
        if value < LEAST_SILENCE:
            raise ValueError(f"runs send a heartbeat each 30 s: wait for at least {LEAST_SILENCE.total_seconds():g}s")
        return value


class Pending(Section):
    """Runs that were taken and never begin: they have sent no heartbeat that could be missed."""

    after: Duration = Field(
        timedelta(minutes=30), description="A run that has not begun so long after it was taken is Crashed."
    )

    @field_validator("after")
    @classmethod
    def _longer_than_a_start(cls, value: timedelta) -> timedelta:
        if value < LEAST_START:
            raise ValueError(
                f"a busy machine takes a while, and a pool fetches images: wait for at least "
                f"{LEAST_START.total_seconds() / 60:g}m"
            )
        return value


class Reruns(Section):
    """Crashed runs are run again; each flow goes on from what a dead run left."""

    most: int = Field(2, ge=0, le=10, description="How often one run is run again; 0: never.")


class Notification(Section):
    """Who is told of what."""

    name: str = Field(pattern=_NAME, description="Names the channel on the server: perennial-NAME.")
    on: tuple[Occasion, ...] = Field(min_length=1)
    models: tuple[str, ...] = Field((), description="Of these models only; default: of all.")
    url_env: str | None = Field(
        None,
        pattern=_VARIABLE,
        description="The variable with an Apprise address: a Slack webhook, mailtos://…, jsons://…, and many more.",
    )
    block: str | None = Field(
        None, pattern=r"^[a-z0-9-]+/[a-z0-9-]+$", description="A notification block that stands on the server."
    )

    @model_validator(mode="after")
    def _one_way(self) -> Notification:
        if bool(self.url_env) == bool(self.block):
            raise ValueError("give exactly one of url_env and block")
        return self


class GitHub(Section):
    """A repository whose workflow is started by `repository_dispatch`."""

    repository: str = Field(pattern=r"^[\w.-]+/[\w.-]+$", description="OWNER/NAME.")
    event: str = Field("perennial-promoted", description="The workflow's repository_dispatch type.")
    token_env: str = Field(pattern=_VARIABLE, description="The variable with a token that may write its contents.")
    api: str = Field("https://api.github.com", pattern=r"^https?://", description="Of GitHub Enterprise: HOST/api/v3.")


class HttpHook(Section):
    """Any receiver of a JSON document that knows us by a bearer token."""

    url_env: str = Field(pattern=_VARIABLE, description="The variable with the address.")
    token_env: str = Field(pattern=_VARIABLE, description="The variable with the bearer token.")


class Delivery(Section):
    """What is started when the champion of a model changes, or something stands against one."""

    name: str = Field(pattern=_NAME, description="Names the webhook on the server: perennial-NAME.")
    on: tuple[Literal["promoted", "alert"], ...] = Field(
        ("promoted",), min_length=1, description="promoted: the champion changed; alert: what is told of a model."
    )
    models: tuple[str, ...] = Field((), description="Of these models only; default: of all.")
    github: GitHub | None = None
    webhook: HttpHook | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Delivery:
        if bool(self.github) == bool(self.webhook):
            raise ValueError("give exactly one of github and webhook")
        return self


class Automations(Section):
    """The whole of `automations.yaml`."""

    zombies: Zombies = Zombies()
    pending: Pending = Pending()
    reruns: Reruns = Reruns()
    notifications: tuple[Notification, ...] = ()
    deliveries: tuple[Delivery, ...] = ()

    @model_validator(mode="after")
    def _distinct(self) -> Automations:
        for kind in ("notifications", "deliveries"):
            names = [item.name for item in getattr(self, kind)]
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"{kind}: each needs a name of its own; named twice: {', '.join(twice)}")
        return self

    def variables(self) -> list[str]:
        """The environment variables that hold the secrets, each once."""
        named = [item.url_env for item in self.notifications]
        for delivery in self.deliveries:
            if delivery.github:
                named.append(delivery.github.token_env)
            if delivery.webhook:
                named += [delivery.webhook.url_env, delivery.webhook.token_env]
        return list(dict.fromkeys(name for name in named if name))


def load_automations(folders: list[Path], models: Mapping[str, object] | None = None) -> Automations:
    """The automations of these folders of models: those of the one file there is, or the defaults.

    Args:
        models: The defined models: what names another is refused.

    Raises:
        DefinitionError: Two folders have a file, or it breaks a rule; file, key, value, rule and remedy are named.
    """
    paths = [path for folder in folders if (path := folder / AUTOMATIONS_FILE).exists()]
    if len(paths) > 1:
        raise DefinitionError(f"there are several {AUTOMATIONS_FILE}: {', '.join(map(str, paths))}", "Keep one")
    if not paths:
        return Automations()
    automations = _read(paths[0])
    if models is not None:
        items: tuple[Notification | Delivery, ...] = (*automations.notifications, *automations.deliveries)
        named = {model for item in items for model in item.models}
        if unknown := sorted(named - set(models)):
            raise DefinitionError(
                f"{paths[0]}: models: there is no model {', '.join(unknown)}", f"Defined are: {', '.join(models)}"
            )
    return automations


def secret(name: str) -> str | None:
    """A secret of the environment; None where it is not set or empty."""
    return os.environ.get(name) or None


def _read(path: Path) -> Automations:
    try:
        # YAML 1.1 reads the key `on` as true.
        raw = read_mapping(path, start="`notifications:`, `deliveries:`, `zombies:`, `pending:` or `reruns:`")
        for item in [*(raw.get("notifications") or []), *(raw.get("deliveries") or [])]:
            if isinstance(item, dict) and True in item:
                item["on"] = item.pop(True)
        return Automations.model_validate({key: value for key, value in raw.items() if value is not None})
    except ValidationError as error:
        raise DefinitionError(f"{path}: {'; '.join(_told(item) for item in error.errors())}") from error


def _told(item: object) -> str:
    assert isinstance(item, dict)
    key = ".".join(str(part) for part in item["loc"]) or "the whole"
    value = item.get("input")
    shown = f" = {value!r}" if isinstance(value, str | int | float | bool) else ""
    if item["type"] == "extra_forbidden":
        return f"{key}{shown}: unknown key. Remove it, or see the README"
    if item["type"] == "missing":
        return f"{key}: is required. Add it"
    return f"{key}{shown}: {item['msg'].removeprefix('Value error, ')}. Correct the value"
