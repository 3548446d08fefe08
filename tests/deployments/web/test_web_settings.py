"""Tests of who may come in: tokens, roles, misspelt settings, exposure."""

from __future__ import annotations

import pytest

from deployments.web.settings import People, check_exposure, load_web_settings, new_token
from perennial.errors import DefinitionError


def test_a_token_names_its_person_and_role() -> None:
    token, entry = new_token("label", "ada@example.org")
    people = People(f"{entry}, {new_token('admin', 'bo')[1]}")
    digest = people.enter(f" {token}\n")
    person = people.named(digest)
    assert person is not None
    assert (person.name, person.role) == ("ada@example.org", "label")
    assert [person.may(role) for role in ("view", "label", "approve", "admin")] == [True, True, False, False]  # type: ignore[arg-type]
    assert people.enter(token[:-1]) is None
    assert people.named(None) is None
    assert People("").named(digest) is None


@pytest.mark.parametrize(("role", "name"), [("view", "a:b"), ("view", "a,b"), ("boss", "ada"), ("view", "")])
def test_a_name_that_would_be_read_wrongly_is_refused(role: str, name: str) -> None:
    with pytest.raises(DefinitionError, match="is no name for a token"):
        new_token(role, name)


def test_settings_are_read_from_the_environment_and_told_without_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERENNIAL_WEB_PORT", "9000")  # a setting of the installation
    monkeypatch.setenv("PERENNIAL_WEB_TOKENS", new_token("view", "ada")[1])
    assert People(load_web_settings().tokens).needed
    assert "ada" not in repr(load_web_settings())
    monkeypatch.setenv("PERENNIAL_WEB_TOKENS", "view:ada:secret")
    with pytest.raises(DefinitionError) as told:
        load_web_settings()
    assert "secret" not in str(told.value)
    assert "perennial web --new-token" in str(told.value)
    monkeypatch.delenv("PERENNIAL_WEB_TOKENS")
    monkeypatch.setenv("PERENNIAL_WEB_TOKEN", "x")
    with pytest.raises(DefinitionError, match="Did you mean PERENNIAL_WEB_TOKENS"):
        load_web_settings()


def test_nobody_beyond_this_machine_without_tokens() -> None:
    check_exposure("127.0.0.1", People(""))
    check_exposure("0.0.0.0", People(new_token("view", "ada")[1]))
    with pytest.raises(DefinitionError, match="can be reached by other machines"):
        check_exposure("0.0.0.0", People(""))
