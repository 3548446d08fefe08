"""The flow that makes, judges and, on evidence, promotes a challenger. Thin: each step is in tasks.steps.retrain."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from prefect import flow
from prefect.runtime import flow_run

from flows.recording import (
    announce_gate,
    gate_title,
    inline_image,
    moment,
    nothing_to_do,
    publish_markdown,
    publish_table,
    run_is_alive,
    start,
    step,
    tell,
    tell_waiting,
    title_run,
)
from perennial.errors import ClaimedError
from perennial.workspace import Workspace, open_workspace
from tasks.gate.report import render_markdown
from tasks.learning.search import TrialRecord
from tasks.steps import retrain as retraining
from tasks.steps.describe import describe, draw_tuning, tuning_table, with_twin
from tasks.steps.monitor import require_sound_data
from tasks.steps.register import register_training


@flow(name="retrain", flow_run_name="retrain {model}", retries=0)
def retrain(
    model: str,
    as_of: datetime | None = None,
    decision_id: str | None = None,
    wait_seconds: float = 5.0,
    force: bool = False,
    again: bool = False,
    promote: bool = False,
) -> dict[str, Any]:
    """Train a challenger, judge it, register it, and promote it if the gate lets it in.

    Args:
        model: The model's name.
        as_of: The moment; only what was known then is used. Now by default.
        decision_id: The decision that asked for it: the run claims it, or ends at once, skipped, if another run has.
        wait_seconds: How long to wait where the model is being retrained already.
        force: Train although the newest check asks for repair.
        again: While developing: judge on the newest rows although the champion has learned from them. It is told.
        promote: With `again`: let it in over a live champion.

    Raises:
        ConflictError: The decision is claimed, the model is being retrained, or its data is broken.
    """
    try:
        return _retrain(model, as_of, decision_id, wait_seconds, force, again=again, promote=promote)
    except ClaimedError as error:
        return nothing_to_do(error)


def _retrain(
    model: str, as_of: datetime | None, decision_id: str | None, wait_seconds: float, force: bool, *, again: bool,
    promote: bool,
) -> dict[str, Any]:  # fmt: skip
    workspace, at = open_workspace(patient=True), moment(as_of)
    definition = workspace.definition(model)
    by = str(flow_run.get_id() or "retrain")
    if decision_id:
        workspace.ledger(model).require_open(decision_id, by, is_alive=run_is_alive)
    if not force:
        require_sound_data(workspace, model, as_of=at)
    with workspace.retraining(model, wait_seconds=wait_seconds) as lease:
        if decision_id:
            _claim(workspace, model, decision_id, by, at)
        seconds: dict[str, float] = {}
        with _timed(seconds, "prepare"):
            prepared = step("prepare", retraining.prepare)(workspace, definition, as_of=at, again=again)
        with _timed(seconds, "tune"):
            tuning = step("tune", retraining.search)(workspace, prepared, progress=_tell_trial)
        # A first model is rarely kept out: its twin is fitted beside it, on the cores that boosting leaves idle.
        early = start("refit", retraining.refit)(prepared, tuning) if prepared.champion is None else None
        with _timed(seconds, "train"):
            training = start("train", retraining.train)(prepared, tuning)
            _show_tuning(model, tuning)
            challenger = training.result()
        with _timed(seconds, "judge"):
            judged = step("gate", retraining.judge_challenger)(workspace, prepared, challenger)
        if again:
            judged = retraining.judged_again(workspace, judged, model, promote=promote)
            prepared = retraining.beating(workspace, prepared)
        publish_markdown("gate", model, render_markdown(judged.report), f"Gate: {judged.report.verdict}")
        stays = judged.report.verdict in ("promote", "wait")
        refitting = early or (start("refit", retraining.refit)(prepared, tuning) if stays else None)
        record = step("describe", describe)(
            prepared, tuning, challenger, judged, seconds=seconds, decision_id=decision_id
        )
        twin = refitting.result() if refitting else None
        if stays and twin:
            record = with_twin(record, twin)
        lease.require()
        version = step("register", register_training)(workspace.registry, record)
        reign = step("promote", retraining.promote)(
            workspace, prepared, version, judged.report, by=by, decision_id=decision_id
        )
        step("record", retraining.record_outcome)(
            workspace, prepared, judged, by=by, decision_id=decision_id, version=version.number
        )
    waits = tell_waiting(workspace, definition, version.number)
    title_run(
        *gate_title("retrain", model, version.number, judged.report.verdict, promoted=reign is not None, waits=waits)
    )
    announce_gate(model, version.number, judged.report.verdict, judged.report.reasons, reign, waits=waits)
    return {
        "version": version.number,
        "gate": judged.report.verdict,
        "promoted": reign is not None,
        "waits_for_approval": waits,
        "waits_for_evidence": judged.report.verdict == "wait",
        "reason": judged.report.reasons[0] if judged.report.reasons else "",
    }


def _claim(workspace: Workspace, model: str, decision_id: str, by: str, at: datetime) -> None:
    workspace.ledger(model).claim(decision_id, by, as_of=at, recorded_at=datetime.now(UTC), is_alive=run_is_alive)


def _tell_trial(trial: TrialRecord, best: TrialRecord | None) -> None:
    reached = f", best so far {best.value:.5g}" if best is not None and best.value is not None else ""
    tell(f"tune: trial {trial.number + 1} done{reached}")


def _show_tuning(model: str, tuning: Any) -> None:
    picture = inline_image(draw_tuning(tuning), "The best value by trial")
    best = f"Best {tuning.metric} {tuning.value:.5g} of {len(tuning.trials)} trials, ended by {tuning.stopped_by}."
    publish_markdown("tuning", model, f"# Tuning of {model}\n\n{best}\n\n{picture}\n", best)
    publish_table("tuning-trials", model, tuning_table(tuning).to_dict("records"), best)


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - started
