"""The demo on its real flights, for one week: interrupted while it tunes, started again, it goes on to its end.

In this process, which has imported what it needs; a process of its own runs it in tests/test_interpreters.py.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from perennial.cli import main
from perennial.settings import PROJECT_ROOT
from perennial.state.store import Store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def demo_home(
    tmp_path: Path, migrate_home: Callable[[Path], None], mlflow_database: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """Where it keeps its state, with the databases' tables made; what it changes of this process is put back."""
    before = dict(os.environ)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for name in [name for name in os.environ if name.startswith("PERENNIAL_")]:
        del os.environ[name]
    monkeypatch.chdir(PROJECT_ROOT)
    (tmp_path / "demo").mkdir()
    migrate_home(tmp_path / "demo")
    shutil.copy(mlflow_database, tmp_path / "demo" / "mlflow.db")
    try:
        yield tmp_path
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.environ.clear()
        os.environ.update(before)


def demo(home: Path) -> int:
    return main(["--home", str(home), "demo", "--weeks", "1", "--json"])


def test_interrupted_it_says_so_and_goes_on(
    demo_home: Path, prefect_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first time with a Prefect server of its own, then with one that runs."""
    from tasks.steps import retrain as retraining

    tune, servers = retraining.tune, psutil.Process().children(recursive=True)

    def interrupted(*arguments: Any, **more: Any) -> Any:
        assert psutil.Process().children(recursive=True) != servers
        os.kill(os.getpid(), signal.SIGINT)
        return tune(*arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(retraining, "tune", interrupted)
        assert demo(demo_home) == 130
    told = capsys.readouterr().err
    assert "tuning, training and judging" in told
    assert "`perennial demo` goes on there" in told
    assert psutil.Process().children(recursive=True) == servers, "the server that it started has ended"

    monkeypatch.setenv("PERENNIAL_PREFECT_API_URL", prefect_url)
    assert demo(demo_home) == 0
    captured = capsys.readouterr()
    summary = json.loads(captured.out)
    assert summary["weeks"] == 1
    assert sum(summary["verdicts"].values()) == 1
    assert summary["live"] == summary["never_retrained"], "one champion answered all of the week"
    receipts = Store(str(demo_home / "demo" / "tables")).frame("flights", "receipts")
    assert (receipts["kept"] > 50_000).sum() == 1, "what was ingested is not ingested again"
    assert Path(summary["picture"]).read_bytes().startswith(b"\x89PNG")
    assert "flights" in Path(summary["page"]).read_text(encoding="utf-8")
