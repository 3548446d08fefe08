"""An absent registry is waited for, a wrong request is not, and what may not happen twice is not sent twice."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest
import sqlalchemy

from perennial.errors import RegistryError
from perennial.state.patience import Patient, ask, is_away, patiently


class Registry:
    """Away for the first calls."""

    def __init__(self, absences: int) -> None:
        self.absences, self.calls = absences, 0
        self.name = "registry"

    def get_run(self, run: str) -> str:
        self.calls += 1
        if self.calls <= self.absences:
            raise sqlalchemy.exc.InterfaceError("select", None, Exception("Can't create a connection"))
        return run

    create_run = get_run


def test_it_asks_again_until_it_answers() -> None:
    registry = Registry(2)
    assert Patient(registry, 10).get_run("a") == "a"
    assert registry.calls == 3
    assert Patient(registry, 10).name == "registry"


def test_what_may_not_happen_twice_is_sent_once() -> None:
    registry = Registry(1)
    with pytest.raises(RegistryError, match=r"the registry or its storage does not answer \(InterfaceError\)"):
        Patient(registry, 10).create_run("a")
    assert registry.calls == 1


def test_an_absence_that_lasts_is_told_with_its_remedy() -> None:
    with pytest.raises(
        RegistryError, match=r"did not answer within 0.3 s .*InterfaceError.*perennial doctor"
    ) as caught:
        ask(lambda: Registry(99).get_run("a"), 0.3)
    assert is_away(caught.value), "whoever called it may wait in turn"


def test_a_mistake_is_told_at_once() -> None:
    started = time.monotonic()
    with pytest.raises(ZeroDivisionError):
        patiently(lambda: 1 / 0, 60)
    assert time.monotonic() - started < 1


@pytest.mark.parametrize(
    ("error", "away"),
    [
        (ConnectionRefusedError(111, "refused"), True),
        (httpx.ConnectError("refused"), True),
        (sqlalchemy.exc.OperationalError("x", None, Exception("database is locked")), True),
        (Exception("FATAL 57P03: the database system is starting up"), True),
        (sqlalchemy.exc.OperationalError("x", None, Exception("unable to open database file")), False),
        (sqlalchemy.exc.ProgrammingError("x", None, Exception("no such table")), False),
        (ValueError("wrong"), False),
        (FileNotFoundError(2, "none"), False),
    ],
)
def test_what_counts_as_absence(error: Exception, away: bool) -> None:
    assert is_away(error) == away
    wrapped: Any = RuntimeError("outer")
    wrapped.__cause__ = error
    assert is_away(wrapped) == away


class Contested:
    """Whose writes meet another's for the first times."""

    def __init__(self, meetings: int) -> None:
        self.meetings, self.calls = meetings, 0

    def set_tag(self, name: str) -> str:
        self.calls += 1
        if self.calls <= self.meetings:
            raise sqlalchemy.exc.IntegrityError("insert", None, Exception("UNIQUE constraint failed: tags.key"))
        return name

    create_version = set_tag


def test_who_met_another_writer_writes_again() -> None:
    assert Patient(Contested(2), 10).set_tag("a") == "a"
    with pytest.raises(sqlalchemy.exc.IntegrityError):
        Patient(Contested(3), 10).set_tag("a")
    made = Contested(1)
    with pytest.raises(sqlalchemy.exc.IntegrityError):
        Patient(made, 10).create_version("a")
    assert made.calls == 1
