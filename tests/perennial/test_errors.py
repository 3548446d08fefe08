"""An error says what is wrong and what to do, once each, and survives a process's border."""

from __future__ import annotations

import pickle

import pytest

from perennial import errors
from perennial.errors import NotFoundError, PerennialError

FAMILY = [item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, PerennialError)]


def test_problem_and_remedy_are_two_sentences() -> None:
    assert str(NotFoundError("there is no model 'x'", "Write one")) == "there is no model 'x'. Write one."


def test_full_stops_are_not_doubled() -> None:
    assert str(NotFoundError("it is gone.", "Look.")) == "it is gone. Look."


def test_a_remedy_may_be_missing() -> None:
    assert str(NotFoundError("it is gone")) == "it is gone."


@pytest.mark.parametrize("kind", FAMILY)
def test_pickles_with_its_parts(kind: type[PerennialError]) -> None:
    again = pickle.loads(pickle.dumps(kind("a problem", "A remedy")))
    assert type(again) is kind
    assert (again.problem, again.remedy, str(again)) == ("a problem", "A remedy", "a problem. A remedy.")
