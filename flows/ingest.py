"""The flow that brings a model's new rows and truths into the tables. Thin: how is in tasks.steps.ingest."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from prefect import flow

from flows.recording import moment, publish_markdown, step
from perennial.definition import ModelDefinition
from perennial.errors import ValidationRefused
from perennial.state.leases import Lease
from perennial.state.store import LAYOUT
from perennial.workspace import Workspace, open_workspace
from tasks.rows.files import read_file
from tasks.rows.labels import label_frame
from tasks.steps.ingest import ingest_batch, read_new
from tasks.validation.report import render_markdown
from tasks.validation.suites import find_suite, load_suite

_MOST_FILES = 12


@flow(name="ingest", flow_run_name="ingest-{model}", retries=0)
def ingest(
    model: str, files: list[str] | None = None, as_of: datetime | None = None, history: bool = False
) -> dict[str, Any]:
    """Ingest files, or else what is new in the model's source.

    Args:
        model: The model's name.
        files: Parquet, CSV or JSON-lines files, each a batch; the source by default.
        as_of: The moment of ingestion; now by default.
        history: The files are the past: rows and labels count as known when they happened.

    Raises:
        ValidationRefused: A batch failed a critical expectation and is in quarantine; the others are in.
    """
    workspace = open_workspace(patient=True)
    with workspace.ingesting(model, wait_seconds=60) as lease:
        done = _ingest(workspace, workspace.definition(model), files, moment(as_of), history, lease)
        step("compact", _compact)(workspace, model)
        return done


def _compact(workspace: Workspace, model: str) -> list[str]:
    """Merge the many small files that regular appends leave, or reading would grow slower with each."""
    return [name for name in LAYOUT if workspace.store.compact(model, name, least_files=_MOST_FILES)]


def _ingest(
    workspace: Workspace, definition: ModelDefinition, files: list[str] | None, at: datetime, history: bool,
    lease: Lease,
) -> dict[str, Any]:  # fmt: skip
    model = definition.name
    suite = load_suite(find_suite(model, workspace.settings.expectation_folders))
    labelled = 0
    if files:
        batches = [(path, step("read", read_file)(path, definition)) for path in files]
    else:
        found = step("read", read_new)(workspace.store, definition, as_of=at)
        history = history or found.history
        batches = [("source", found.rows)] if len(found.rows) else []
        if len(found.truths):
            add = step("label", label_frame)
            added = add(workspace.store, definition, found.truths, as_of=at, author="source")
            labelled = added.new + added.corrected
    receipts = []
    for name, frame in batches:
        lease.require()
        validated = step("validate-and-store", ingest_batch)
        receipt, report = validated(workspace.store, definition, frame, suite, source=name, as_of=at, history=history)
        receipts.append(receipt)
        if report is not None:
            publish_markdown("validation", model, render_markdown(report), f"{name}: {receipt.verdict}")
    refused = [item for item in receipts if item.verdict == "refused"]
    if refused:
        raise ValidationRefused(
            "; ".join(f"{item.source} was refused: {item.reasons[0] if item.reasons else ''}" for item in refused),
            f"Its rows are in quarantine: mend the data or expectations/{model}.json, then ingest it again",
        )
    return {
        "rows": sum(item.rows for item in receipts),
        "kept": sum(item.kept for item in receipts),
        "quarantined": sum(item.quarantined for item in receipts),
        "duplicates": sum(item.duplicates for item in receipts),
        "known_batches": sum(item.verdict == "known" for item in receipts),
        "labels": labelled + sum(item.labels for item in receipts),
    }
