"""Agreement by published figures, and by its own rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.review.agreement import cohens_kappa, krippendorffs_alpha, percent

# Krippendorff, Computing Krippendorff's Alpha-Reliability (2011): example B (two observers, binary data), and the
# reliability data of example C (four observers, twelve units, gaps).
BINARY = ("0100000010", "1110010000")
FOUR = ("1 2 3 3 2 1 4 1 2 . . .", "1 2 3 3 2 2 4 1 2 5 . 3", ". 3 3 3 2 3 4 2 2 5 1 .", "1 2 3 3 2 4 4 1 2 5 1 .")


def units(rows: list[list[str]]) -> list[list[float | str]]:
    return [[float(value) for value in unit if value != "."] for unit in zip(*rows, strict=True)]


def test_krippendorffs_own_examples() -> None:
    two = units([list(row) for row in BINARY])
    assert krippendorffs_alpha(two) == pytest.approx(0.095, abs=5e-4)
    four = units([row.split() for row in FOUR])
    assert krippendorffs_alpha(four) == pytest.approx(0.743, abs=5e-4)
    assert krippendorffs_alpha(four, "interval") == pytest.approx(0.849, abs=5e-4)


def test_cohens_kappa_of_a_textbook_table() -> None:
    """20, 5, 10 and 15 of 50 proposals: 0.70 observed, 0.50 by chance, kappa 0.4."""
    first = ["yes"] * 25 + ["no"] * 25
    second = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    assert percent(first, second) == pytest.approx(0.7)
    assert cohens_kappa(first, second) == pytest.approx(0.4)


def test_what_cannot_be_said_is_not_said() -> None:
    assert percent([], []) is None
    assert cohens_kappa(["yes", "yes"], ["yes", "yes"]) is None
    assert krippendorffs_alpha([]) is None
    assert krippendorffs_alpha([["yes"], ["no"]]) is None
    assert krippendorffs_alpha([["yes", "yes"]]) is None


_units = st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=4), min_size=1, max_size=12)


@given(_units)
def test_alpha_is_one_where_all_agree_and_never_more(told: list[list[str]]) -> None:
    found = krippendorffs_alpha(told)  # type: ignore[arg-type]
    assert found is None or found <= 1.0
    alike = krippendorffs_alpha([[unit[0]] * 2 for unit in told])
    assert alike is None or alike == pytest.approx(1.0)
    assert krippendorffs_alpha([list(reversed(unit)) for unit in reversed(told)]) == (  # type: ignore[arg-type]
        None if found is None else pytest.approx(found)
    )
