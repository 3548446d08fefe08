"""The demo on its real flights, for one week: interrupted while it tunes, started again, it goes on to its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from perennial.settings import PROJECT_ROOT
from perennial.state.store import Store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def start(home: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "perennial.cli", "--home", str(home), "demo", "--weeks", "1", "--json"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "PERENNIAL_"))}
    return subprocess.Popen(
        command, cwd=PROJECT_ROOT, env=kept, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )  # fmt: skip


def test_interrupted_it_says_so_and_goes_on(tmp_path: Path) -> None:
    demo = start(tmp_path)
    assert demo.stderr is not None
    for line in demo.stderr:
        if "tuning, training and judging" in line:
            demo.send_signal(signal.SIGINT)
            break
    _, rest = demo.communicate(timeout=120)
    assert demo.returncode == 130, rest
    assert "`perennial demo` goes on there" in rest

    out, err = start(tmp_path).communicate(timeout=400)
    assert out, err
    summary = json.loads(out)
    assert summary["weeks"] == 1
    assert sum(summary["verdicts"].values()) == 1
    assert summary["live"] == summary["never_retrained"], "one champion answered all of the week"
    receipts = Store(str(tmp_path / "demo" / "tables")).frame("flights", "receipts")
    assert (receipts["kept"] > 50_000).sum() == 1, "what was ingested is not ingested again"
    assert Path(summary["picture"]).read_bytes().startswith(b"\x89PNG")
    assert "flights" in Path(summary["page"]).read_text(encoding="utf-8")
