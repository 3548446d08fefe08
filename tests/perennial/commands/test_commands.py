"""The command line's loop on a small real model, through the real flows: output, tables and exit codes."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import small_model

from perennial.cli import main
from perennial.workspace import Workspace

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(
    workspace: Workspace, prefect_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Calls the command line in the workspace, on the session's server: exit code, stdout, stderr."""
    settings = workspace.settings
    small_model.define(workspace)
    monkeypatch.setenv("PERENNIAL_HOME", str(settings.home))
    monkeypatch.setenv("PERENNIAL_MODELS", settings.models)
    monkeypatch.setenv("PERENNIAL_EXPECTATIONS", settings.expectations)
    monkeypatch.setenv("PERENNIAL_PREFECT_API_URL", prefect_url)
    # Prefect's console handler keeps the stderr of the test in which it was made, closed since: no complaint of that.
    monkeypatch.setattr(logging, "raiseExceptions", False)

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def printed(run: Run, *arguments: object) -> Any:
    code, out, err = run(*arguments, "--json")
    assert code == 0, err
    return json.loads(out)


def parquet(path: Path, frame: pd.DataFrame) -> Path:
    frame.to_parquet(path)
    return path


def csv(path: Path, frame: pd.DataFrame) -> Path:
    frame.to_csv(path, index=False)
    return path


def test_the_loop_by_hand(run: Run, workspace: Workspace, tmp_path: Path) -> None:
    past = parquet(tmp_path / "past.parquet", small_model.rows(0, 15))
    known = printed(run, "ingest", "digits", past, "--history", "--as-of", small_model.day(15).isoformat())
    assert (known["rows"], known["kept"], known["quarantined"]) == (1080, 1080, 0)
    assert known["labels"] > 900
    again = printed(run, "ingest", "digits", past, "--history", "--as-of", small_model.day(15).isoformat())
    assert (again["kept"], again["known_batches"]) == (0, 1)

    trained = printed(run, "retrain", "digits", "--as-of", small_model.day(15).isoformat())
    assert (trained["gate"], trained["promoted"], trained["version"]) == ("promote", True, 1)

    fresh = small_model.rows(15, 19)
    fresh["row"] = "00" + fresh["row"].str.removeprefix("r")  # 001080 in a CSV file is a name and no number
    week = csv(tmp_path / "week.csv", fresh.drop(columns="even"))
    code, out, _ = run("ingest", "digits", week, "--as-of", small_model.day(19).isoformat())
    assert code == 0
    assert out.startswith("288 of 288 rows kept, 0 quarantined, 0 known already, 0 labels\nreport: ")
    assert Path(out.split("report: ")[1].strip()).is_file()
    scored = tmp_path / "scored.csv"
    code, out, _ = run("score", "digits", week, scored, "--as-of", small_model.day(19).isoformat())
    assert (code, out) == (0, f"288 rows scored with version 1 into {scored}\n")
    made = pd.read_csv(scored, dtype={"row": "str"})
    assert made["score"].between(0, 1).all()
    assert made["row"].tolist() == fresh["row"].tolist()

    truth = csv(tmp_path / "truth.csv", fresh[["row", "even"]])
    assert run("label", "digits", truth, "--as-of", small_model.day(20).isoformat())[1] == (
        "288 new labels, 0 corrected, 0 unchanged, 0 rows without truth\n"
    )

    for table, column in (("batches", "_id"), ("predictions", "id"), ("labels", "id")):
        assert set(fresh["row"]) <= set(workspace.store.frame("digits", table, columns=[column])[column])

    dry = printed(run, "check", "digits", "--dry-run", "--as-of", small_model.day(20).isoformat())
    assert printed(run, "ledger", "digits") == []
    checked = printed(run, "check", "digits", "--as-of", small_model.day(20).isoformat())
    assert checked["decision_id"] == dry["decision_id"]
    assert checked["verdict"] == dry["verdict"]
    end = small_model.day(20).isoformat()
    (together,) = printed(run, "check", "--all", "--as-of", end)
    assert (together["model"], together["decision_id"]) == ("digits", dry["decision_id"])
    assert together["verdict"] == dry["verdict"]
    (entry,) = printed(run, "ledger", "digits")
    assert {"decision_id", "as_of", "verdict", "reasons", "signals", "claimed_by"} <= entry.keys()
    assert entry["signals"] == dry["signals"]
    kept = printed(run, "statistics", "digits")
    assert {row["column"] for row in kept} >= {"ink_11", "shade", "(prediction)"}
    (shade,) = printed(run, "statistics", "digits", "--column", "shade")
    assert sum(shade["top"].values()) + shade["missing"] == shade["rows"] == entry["evidence"]["rows"]
    code, _, err = run("statistics", "digits", "--column", "shades")
    assert (code, "Did you mean 'shade'?" in err) == (1, True)

    (status,) = printed(run, "status", "digits")
    assert (status["champion"], status["predictions"], status["verdict"]) == (1, 288, entry["verdict"])
    (line,) = printed(run, "history", "digits")
    assert (line["version"], line["action"]) == (1, "promote")


def test_a_refused_batch_is_one_line_and_leaves_the_tables(run: Run, workspace: Workspace, tmp_path: Path) -> None:
    bad = small_model.rows(0, 3)
    bad["ink_11"] = 1000.0
    code, out, err = run("ingest", "digits", parquet(tmp_path / "bad.parquet", bad))
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert "ink_11" in err
    assert "quarantine" in err
    assert workspace.store.version("digits", "batches") is None
    assert len(workspace.store.read("digits", "quarantine")) == len(bad)


def test_the_quarantine_by_hand_and_from_prefect_s_page(run: Run, workspace: Workspace, tmp_path: Path) -> None:
    from flows.quarantine import quarantine as flow

    frame = small_model.rows(0, 3).astype({"ink_22": object})
    frame.loc[3, "ink_11"] = 17.0
    frame.loc[[4, 5], "ink_22"] = "broken"
    frame["ink_22"] = frame["ink_22"].astype(str)
    code, out, _ = run("ingest", "digits", parquet(tmp_path / "some.parquet", frame))
    assert code == 0
    assert out.startswith("213 of 216 rows kept, 3 quarantined, 0 known already, 213 labels\n")
    assert "ink_22: no finite number (2 rows, such as ink_22: 'broken' is no finite number)" in out
    assert "see `perennial quarantine digits`" in out
    page = Path(out.split("report: ", 1)[1].strip())
    assert "Rows refused one by one" in page.read_text(encoding="utf-8")

    out = run("quarantine", "digits")[1]
    assert "3 rows open" in out
    assert "ink_22: no finite number" in out
    shown = printed(run, "quarantine", "digits", "show", "--rule", "ink_11")
    assert (shown["rows"], shown["entries"][0]["id"], shown["entries"][0]["row"]["ink_11"]) == (1, "r0003", 17.0)
    assert run("quarantine", "digits", "show")[1].count("why: ") == 3

    suite = workspace.settings.expectation_folders[0] / "digits.json"
    suite.write_text(suite.read_text().replace('"max_value": 16', '"max_value": 18'))
    out = run("quarantine", "digits", "release", "--reason", "a brighter lamp")[1]
    assert out.startswith("1 of 3 rows released, 0 known already, 2 stay in quarantine, 1 labels\n")
    assert "stays: ink_22: no finite number" in out
    code, _, err = run("quarantine", "digits", "discard", "--id", "r0004")
    assert (code, "the reason is empty" in err) == (1, True)
    assert run("quarantine", "digits", "discard", "--id", "r0004", "--reason", "a blank")[1] == "1 rows discarded\n"

    assert flow("digits")["open"] == 1
    assert flow("digits", action="release", by="ann")["held"] == 1
    done = flow("digits", action="discard", by="ann", reason="a blank too", ids=["r0005"])
    assert (done["discarded"], done["open"]) == (1, 0)
    assert done["closed"] == {"discarded": 2, "released": 1}


def test_nothing_new_is_told_without_a_run(run: Run, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    small_model.write_source(workspace, small_model.rows(0, 9))
    at = small_model.day(5).isoformat()
    assert printed(run, "ingest", "digits", "--as-of", at)["kept"] == 360
    # Whoever asks for a server now would have to wait for it.
    monkeypatch.setenv("PERENNIAL_PREFECT_API_URL", "http://127.0.0.1:1/api")
    assert run("ingest", "digits", "--as-of", at)[:2] == (0, "0 rows: the source of digits has nothing new\n")
    assert printed(run, "ingest", "digits", "--as-of", at)["rows"] == 0
    code, _, err = run("ingest", "digits", "--as-of", small_model.day(6).isoformat())
    assert (code, "127.0.0.1:1" in err) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("check", "digit", "--dry-run"), 1, "Did you mean digits?"),
        (("check", "digits", "--dry-run"), 1, "perennial retrain digits"),
        (("rollback", "digits"), 1, "never had a champion"),
        (("retrain", "digits"), 1, "perennial ingest digits"),
        (("label", "digits", "absent.csv"), 1, "absent.csv does not exist"),
        (("check", "digits", "--as-of", "yesterday"), 2, "no ISO 8601 time"),
        (("approve", "digits", "--reason", "because"), 1, "waits for approval"),
        (("approve", "digits"), 2, "--reason"),
        (("accept", "digits", "0000", "--reason", "a strike"), 1, "no decision of digits that complains of its data"),
    ],
)
def test_what_can_not_be_done_is_told_with_its_remedy(
    run: Run, arguments: tuple[str, ...], code: int, told: str
) -> None:
    found, out, err = run(*arguments)
    assert (found, out) == (code, "")
    assert told in err


def test_rollback_goes_back_and_can_be_told_where(run: Run, workspace: Workspace) -> None:
    registry = workspace.registry
    now = small_model.day(1)
    for key in ("one", "two"):
        run_id = registry.run_for("digits", key, name=key, tags={})
        registry.client.log_text(run_id, key, "model/weights.txt")
        made = registry.register("digits", training_key=key, run_id=run_id, source=f"runs:/{run_id}/model", tags={})
        registry.promote(made, action="promote", at=now, recorded_at=now, by="test", reason=key)
    started = time.perf_counter()
    code, out, _ = run("rollback", "digits", "--reason", "it answers nonsense", "--by", "ada")
    alias = registry.client.get_model_version_by_alias("digits", "champion")
    assert (int(alias.version), time.perf_counter() - started < 5) == (1, True)
    assert (code, out) == (0, "version 1 of digits is champion again, instead of version 2\n")
    line = printed(run, "history", "digits")[-1]
    assert (line["action"], line["by"], line["reason"]) == ("rollback", "ada", "it answers nonsense")
    assert "champion already" in run("rollback", "digits", "--to", "1")[2]
    (then,) = printed(run, "history", "digits", "--at", small_model.day(2).isoformat())
    assert (then["version"], then["by"], then["reason"]) == (2, "test", "two")
    (since,) = printed(run, "history", "digits", "--at", "2999-01-01")
    assert (since["version"], since["by"]) == (1, "ada")
    assert "had no champion at 1999-01-01" in run("history", "digits", "--at", "1999-01-01")[2]


def test_repair_stops_training_until_a_person_accepts(run: Run, workspace: Workspace, tmp_path: Path) -> None:
    start, end = small_model.day(15), small_model.day(18)
    past = parquet(tmp_path / "past.parquet", small_model.rows(0, 15))
    printed(run, "ingest", "digits", past, "--history", "--as-of", start.isoformat())
    printed(run, "retrain", "digits", "--as-of", start.isoformat())
    # Nothing came in for days: the feed is dead.
    checked = printed(run, "check", "digits", "--as-of", end.isoformat())
    assert checked["verdict"] == "repair"
    code, _, err = run("retrain", "digits", "--as-of", end.isoformat())
    assert code == 1
    assert f"perennial accept digits {checked['decision_id']}" in err
    accepted = run("accept", "digits", checked["decision_id"][:8], "--reason", "the lab is closed", "--by", "ada")
    assert accepted[:2] == (0, "accepted\n")
    (entry,) = printed(run, "ledger", "digits")
    assert (entry["acceptance"]["by"], entry["acceptance"]["reason"]) == ("ada", "the lab is closed")
    assert "asks for repair" not in run("retrain", "digits")[2]


def test_all_models_are_checked_and_one_that_fails_stops_no_other(
    run: Run, workspace: Workspace, tmp_path: Path
) -> None:
    at = small_model.day(15).isoformat()
    assert run("check", "--all", "--dry-run")[:2] == (0, "no model has a champion yet\n")
    definition = workspace.definition("digits")
    small_model.add(workspace, definition, small_model.rows(0, 15), as_of=small_model.day(15), history=True)
    small_model.retrain(workspace, definition, as_of=small_model.day(10))
    small_model.define(workspace, name="absent")
    reign = workspace.store.frame("digits", "history").assign(version=7)
    workspace.store.append("absent", "history", reign)  # a champion that the registry does not have
    code, out, err = run("check", "--all", "--dry-run", "--as-of", at, "--json")
    absent, digits = json.loads(out)
    assert (code, absent["verdict"], absent["decision_id"]) == (1, "failed", None)
    assert absent["reason"].startswith("absent has no version 7")
    assert digits["verdict"] in ("hold", "recalibrate", "retrain", "repair")
    assert "1 of 2 models could not be checked: absent" in err
    assert run("check", "digits", "--all")[0] == run("check")[0] == 2
