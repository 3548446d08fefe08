"""What looks like a secret is hidden, what doesn't is left."""

from __future__ import annotations

import pytest

from perennial.errors import PerennialError
from perennial.redaction import redact, secret_values
from perennial.settings import Settings


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("postgresql://u:p@ss/w0rd@db:5432/x is away", "postgresql://u:***@db:5432/x is away"),
        ("see 's3+x://:key@host/b' there", "see 's3+x://:***@host/b' there"),
        ("https://h/a?X-Amz-Signature=abc&b=1", "https://h/a?X-Amz-Signature=***&b=1"),
        ("https://h/a?b=1&api_key=abc", "https://h/a?b=1&api_key=***"),
        ("http://host:5000/path and s3://bucket/key", "http://host:5000/path and s3://bucket/key"),
        ("at 10:30@noon", "at 10:30@noon"),
        ("plain text", "plain text"),
    ],
)
def test_urls(text: str, hidden: str) -> None:
    assert redact(text, {}) == hidden


def test_values_of_the_environment() -> None:
    environment = {
        "AWS_SECRET_ACCESS_KEY": "abcdefgh123456789", "PREFECT_API_AUTH_STRING": "admin:opensesame",
        "DB_PASSWORD": "short", "HOME": "/root/abcdefgh", "SLACK_TOKEN": "abcdefgh",
    }  # fmt: skip
    assert secret_values(environment) == ["abcdefgh123456789", "admin:opensesame", "opensesame", "abcdefgh"]
    told = redact("key abcdefgh123456789, auth opensesame, short /root/x", environment)
    assert told == "key ***, auth ***, short /root/x"


def test_errors_hide_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DELIVERY_TOKEN", "planted-token-1")
    error = PerennialError("got planted-token-1 from http://u:pw@h/", "Ask http://u:pw@h/?token=planted-token-1")
    assert str(error) == "got *** from http://u:***@h/. Ask http://u:***@h/?token=***."
    assert "pw@" not in repr(error)


def test_settings_don_t_show_the_registry_s_password() -> None:
    assert "planted" not in repr(Settings(tracking_uri="postgresql://u:planted@h/db"))
