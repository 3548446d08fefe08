"""What commands print for people: nothing wider than 80 columns, and progress that does not get in the way."""

from __future__ import annotations

import io
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perennial.commands.output import NARROW, print_records
from perennial.commands.progress import LINE_SECONDS, Progress

WORDS = st.text(st.characters(categories=["Ll", "Lu", "Nd"], max_codepoint=0x17F), min_size=1, max_size=50)


@given(st.lists(st.tuples(WORDS, WORDS, WORDS, st.lists(WORDS, max_size=30)), max_size=4))
def test_records_fit_and_lose_nothing(records: list[tuple[str, str, str, list[str]]]) -> None:
    stream = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        print_records(("first", "second", "third"), [((a, b, c), [" ".join(words)]) for a, b, c, words in records])
    lines = stream.getvalue().splitlines()
    assert all(len(line) <= NARROW for line in lines)
    told = "".join("".join(lines).split())
    for a, b, c, words in records:
        assert all(sorted(set(cell)) == sorted(set(cell) & set(told)) for cell in (a, b, c))
        assert "".join(words) in told


def test_short_cells_stand_in_columns(capsys: pytest.CaptureFixture[str]) -> None:
    print_records(("model", "champion"), [(("a", 1), ["a reason"]), (("longer", None), [])])
    assert capsys.readouterr().out == "model   champion\na       1\n    a reason\nlonger  -\n"


def test_without_a_terminal_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    with Progress(lambda: now[0]) as progress:
        progress("read")
        now[0] = LINE_SECONDS
        progress("tune")
        progress("train")
        now[0] = 2 * LINE_SECONDS + 1
        progress("gate")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "[  5 s] tune\n[ 11 s] gate\n")
