"""The Prefect blocks that carry notifications and deliveries: their secrets come from the environment, and stay there.

A block is ours by its name, `perennial-NAME`. Where the secret's variable is not set, a block that stands already is
kept as it is: whoever deploys needs the secret only once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

from deployments.automation_config import Automations, Delivery, Notification, secret
from deployments.automations import Kind
from deployments.changes import Change, Step
from perennial.errors import DefinitionError, NotFoundError

if TYPE_CHECKING:
    from prefect.blocks.core import Block
    from prefect.client.orchestration import SyncPrefectClient

PREFIX = "perennial-"
# Prefect's Slack block hands any address that is not Slack's to Apprise, which knows e-mail, Teams, JSON and the rest;
# a block class of our own would have to be installed in the server.
_TYPES: Mapping[Kind, str] = {"notification": "slack-webhook", "delivery": "webhook"}
_PAGE = 200


@dataclass(frozen=True)
class Channels:
    """The blocks on the server, looked up when an automation needs one."""

    client: SyncPrefectClient
    config: Automations

    def block(self, kind: Kind, name: str) -> UUID | None:
        """The id of the block for a notification or delivery of the configuration; None while there is none.

        Raises:
            NotFoundError: The configuration names a block that is not there.
        """
        if kind == "notification":
            item = next(item for item in self.config.notifications if item.name == name)
            if item.block:
                slug, block_name = item.block.split("/")
                if (found := self._read(slug, block_name)) is None:
                    raise NotFoundError(
                        f"notification {name}: the Prefect server has no block {item.block}",
                        "Make it in Prefect's UI, or name a variable with url_env",
                    )
                return UUID(str(found.id))
        found = self._read(_TYPES[kind], PREFIX + name)
        return UUID(str(found.id)) if found else None

    def plan(self) -> Iterator[Step]:
        """What has to change among the blocks that carry something.

        Raises:
            DefinitionError: Variables that a new block needs are not set, all of them are named; or hold no address.
        """
        missing: list[str] = []
        steps = []
        for notification in self.config.notifications:
            if notification.url_env:
                url = secret(notification.url_env)
                if url and not _known_to_apprise(url):
                    raise DefinitionError(
                        f"notification {notification.name}: {notification.url_env} holds no address that Apprise knows",
                        "Give a Slack webhook's, mailtos://…, jsons://…, or another of Apprise's",
                    )
                data = {"url": url} if url else None
                missing += self._missing(notification, "notification", [notification.url_env])
                steps.append(self._step("notification", notification.name, data))
        for delivery in self.config.deliveries:
            missing += self._missing(delivery, "delivery", _variables(delivery))
            steps.append(self._step("delivery", delivery.name, _request(delivery)))
        if missing:
            raise DefinitionError(
                f"automations.yaml names secrets that the environment lacks: {', '.join(dict.fromkeys(missing))}",
                "Set them for this one command; they are kept in the Prefect server's blocks",
            )
        yield from steps

    def plan_removals(self) -> Iterator[Step]:
        """Blocks of ours that nothing needs any more; after the automations that used them."""
        wanted = {("notification", item.name) for item in self.config.notifications if item.url_env}
        wanted |= {("delivery", item.name) for item in self.config.deliveries}
        for kind, slug in _TYPES.items():
            for found in self._ours(slug):
                if (kind, str(found.name).removeprefix(PREFIX)) not in wanted:
                    yield Step(
                        Change(f"{slug}/{found.name}", "removed", "channel"),
                        partial(self.client.delete_block_document, found.id),
                    )

    def _missing(self, item: Notification | Delivery, kind: Kind, variables: list[str]) -> list[str]:
        unset = [name for name in variables if secret(name) is None]
        return unset if unset and self._read(_TYPES[kind], PREFIX + item.name) is None else []

    def _step(self, kind: Kind, name: str, data: dict[str, Any] | None) -> Step:
        label = f"{_TYPES[kind]}/{PREFIX}{name}"
        found = self._read(_TYPES[kind], PREFIX + name, secrets=True)
        if data is None or (found and all(found.data.get(key) == value for key, value in data.items())):
            return Step(Change(label, "unchanged", "channel"))
        old = {} if found is None else found.data
        changed = {key: _hidden(key, old, data) for key, value in data.items() if old.get(key) != value}
        action, differences = ("updated", changed) if found else ("created", {})
        return Step(
            Change(label, action, "channel", differences),  # type: ignore[arg-type]
            lambda: _make(kind, data).save(PREFIX + name, overwrite=True),
        )

    def _read(self, slug: str, name: str, *, secrets: bool = False) -> Any:
        from prefect.exceptions import ObjectNotFound

        try:
            return self.client.read_block_document_by_name(name, slug, include_secrets=secrets)
        except ObjectNotFound:
            return None

    def _ours(self, slug: str) -> list[Any]:
        from prefect.exceptions import ObjectNotFound

        try:
            found = self.client.read_block_documents_by_type(slug, include_secrets=False)
        except ObjectNotFound:
            return []
        return [item for item in found if str(item.name).startswith(PREFIX)]


def _make(kind: Kind, data: dict[str, Any]) -> Block:
    from prefect.blocks.notifications import SlackWebhook
    from prefect.blocks.webhook import Webhook

    return SlackWebhook(**data) if kind == "notification" else Webhook(**data)


def _known_to_apprise(url: str) -> bool:
    """Whether a message could be sent there; Prefect would keep any text, and send nothing."""
    import logging

    from apprise import Apprise

    logging.getLogger("apprise").setLevel(logging.CRITICAL)  # it would log the address
    return Apprise.instantiate(url) is not None


def _variables(delivery: Delivery) -> list[str]:
    if delivery.github:
        return [delivery.github.token_env]
    assert delivery.webhook
    return [delivery.webhook.url_env, delivery.webhook.token_env]


def _request(delivery: Delivery) -> dict[str, Any] | None:
    """The webhook block's content; None while a secret is missing."""
    headers = {"Content-Type": "application/json", "User-Agent": "perennial"}
    if delivery.github:
        token = secret(delivery.github.token_env)
        headers["Accept"] = "application/vnd.github+json"
        url: str | None = f"{delivery.github.api}/repos/{delivery.github.repository}/dispatches"
    else:
        assert delivery.webhook
        token, url = secret(delivery.webhook.token_env), secret(delivery.webhook.url_env)
    if token is None or url is None:
        return None
    return {"method": "POST", "url": url, "headers": headers | {"Authorization": f"Bearer {token}"}}


def _hidden(key: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[Any, Any]:
    if key == "method":
        return old.get(key), new[key]
    return ("(set)" if old.get(key) else None), "(set anew)"
