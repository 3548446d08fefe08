"""A check's alert on its real way: the flow, its event, Prefect's automations, a mail server, receivers of HTTP."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from email import message_from_bytes
from email.message import Message
from email.policy import default
from typing import Any

import pytest
from small_model import add, day, define, retrain, rows
from tiny_world import eventually, receiving

from deployments.automation_config import Automations
from deployments.register import register
from flows.monitor import monitor
from perennial.events import ALERT, model_resource
from perennial.workspace import Workspace
from tasks.steps.score import load_version, score_unscored

pytestmark = [
    pytest.mark.slow,
    pytest.mark.process,
    # On loopback, where no certificate is.
    pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS"),
]


@pytest.fixture
def mails() -> Iterator[tuple[int, list[Message]]]:
    """A real mail server on loopback that asks for a name and a password: its port, and what came."""
    from aiosmtpd.controller import Controller
    from aiosmtpd.smtp import AuthResult

    came: list[Message] = []

    class Inbox:
        async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
            came.append(message_from_bytes(envelope.content, policy=default))
            return "250 OK"

    def known(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        return AuthResult(success=(data.login, data.password) == (b"perennial", b"s3cret-s3cret"))

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    controller = Controller(
        Inbox(), hostname="127.0.0.1", port=port, authenticator=known, auth_required=True, auth_require_tls=False
    )
    controller.start()
    try:
        yield port, came
    finally:
        controller.stop()


def broken(workspace: Workspace) -> None:
    """A champion of day 8 and a window whose unit changed at day 13."""
    definition = define(workspace, alerts={}, monitoring={"persistence": "1 of 1", "recalibrate": False})
    add(workspace, definition, rows(0, 8), as_of=day(8), history=True)
    made = retrain(workspace, definition, as_of=day(8))
    newer = rows(8, 16)
    newer.loc[newer["when"] >= day(13), [f"ink_{number}1" for number in range(4)]] /= 1000
    add(workspace, definition, newer, as_of=day(16))
    pipeline = load_version(workspace.registry, made.version, definition)
    score_unscored(workspace.store, definition, pipeline, version=1, as_of=day(16))


def test_what_stands_is_told_once_by_mail_slack_like_json_and_webhook(
    workspace: Workspace, prefect_url: str, mails: tuple[int, list[Message]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.events import emit_event

    port, inbox = mails
    for name in [name for name in os.environ if name.startswith("PERENNIAL_")]:
        monkeypatch.delenv(name)
    for name in ("home", "models", "expectations"):
        monkeypatch.setenv(f"PERENNIAL_{name.upper()}", str(getattr(workspace.settings, name)))
    broken(workspace)
    with receiving() as receiver:
        monkeypatch.setenv("TEAM_URL", f"json://{receiver.address}/team")
        monkeypatch.setenv(
            "MAIL_URL",
            f"mailto://perennial:s3cret-s3cret@127.0.0.1:{port}/?from=perennial@models.example&to=team@models.example"
            "&smtp=127.0.0.1&mode=insecure&format=text",
        )
        monkeypatch.setenv("HOOK_URL", f"http://{receiver.address}/hook")
        monkeypatch.setenv("HOOK_TOKEN", "s3cret")
        hook = {"name": "hook", "on": ["alert"], "webhook": {"url_env": "HOOK_URL", "token_env": "HOOK_TOKEN"}}
        told = [{"name": name, "on": ["alert"], "url_env": f"{name.upper()}_URL"} for name in ("team", "mail")]
        register({}, automations=Automations.model_validate({"notifications": told, "deliveries": [hook]}))

        def emit(subject: str) -> None:
            names = ("model", "at", "source", "decision_id", "link", "subject", "text", "items", "standing", "over")
            resource = {"prefect.resource.id": model_resource("other")}
            emit_event(ALERT, resource, payload=dict.fromkeys(names, "-") | {"subject": subject})

        def known() -> bool:  # the server takes a moment to know a new automation
            emit("warm")
            both = {"/team", "/hook"}
            return bool(eventually(lambda: inbox and {path for path, _, _ in receiver.requests} == both, 5))

        try:
            assert eventually(known, 60), (inbox, receiver.requests)
            decision = monitor("digits", as_of=day(16), report=False)
            assert decision["verdict"] == "repair"
            mail = eventually(lambda: [item for item in inbox if item["Subject"] != "warm"])[0]
            bodies = eventually(
                lambda: found if len(found := [
                    (path, body) for path, _, body in receiver.requests if "digits" in str(body)
                ]) == 2 else None
            )  # fmt: skip
            monitor("digits", as_of=day(16.5), report=False)  # the same stands: silence
            emit("end")
            assert eventually(lambda: [item for item in inbox if item["Subject"] == "end"])
        finally:
            register({})
        about = [item["Subject"] for item in inbox if "digits" in str(item["Subject"])]
        assert len(about) == 1
        assert about[0].startswith("digits: broken data")
        assert mail["To"] == "team@models.example"
        assert "perennial@models.example" in str(mail["From"])
        text = mail.get_body(("plain", "html")).get_content()  # type: ignore[attr-defined]
        for part in (
            "!! broken data",
            "perennial accept digits",
            "The check's verdict: repair",
            decision["decision_id"],
        ):
            assert part in text, text
        by_path = dict(bodies)
        assert by_path["/team"]["title"] == about[0]
        machine = by_path["/hook"]
        assert machine["event"] == ALERT
        assert machine["decision_id"] == decision["decision_id"]
        assert machine["link"].startswith("http")
        assert machine["link"] in machine["text"]
        assert {item["kind"] for item in machine["items"]} <= {"data", "quality", "drift", "labels"}
        assert sum(path == "/hook" and "digits" in str(body) for path, _, body in receiver.requests) == 1


def test_slacks_own_body(monkeypatch: pytest.MonkeyPatch) -> None:
    """The block that carries notifications, on a Slack address, with Slack's host answered by a receiver of ours."""
    from apprise.plugins.slack import NotifySlack
    from prefect.blocks.notifications import SlackWebhook

    with receiving() as receiver:
        monkeypatch.setattr(NotifySlack, "webhook_url", f"http://{receiver.address}/services")
        block = SlackWebhook(url="https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ")
        block.notify("!! quality fell: loss is 2 > 1\n   Look at <it>.", "digits: quality fell")
    ((path, _, body),) = receiver.requests
    assert path == "/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"
    assert "digits: quality fell" in str(body)
    assert "quality fell: loss is 2" in str(body)
    assert "<it>" not in str(body)  # which Slack would take for a link
