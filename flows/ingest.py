"""The flow that brings a model's new rows and truths into the tables. Thin: how is in tasks.steps.ingest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from prefect import flow

from flows.recording import moment, publish_markdown, step, tell, title_run
from perennial.definition import ModelDefinition
from perennial.errors import ValidationRefused
from perennial.state.leases import Lease
from perennial.state.tables import LAYOUT
from perennial.workspace import Workspace, open_workspace
from tasks.rows.classes import known_coding, settle
from tasks.rows.files import read_parts, require_readable
from tasks.steps.ingest import PART_ROWS, SOURCE, Receipt, ingest_batch, write_page
from tasks.steps.source import SourceRead, add_source_truths, read_new
from tasks.validation.report import render_markdown
from tasks.validation.suites import find_suite, load_suite

_MOST_FILES = 12


@flow(name="ingest", flow_run_name="ingest {model}", retries=0)
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
        ValidationRefused: A batch is refused and in quarantine; the others are in.
        DataError: A file is missing or can't be read.
    """
    workspace = open_workspace(patient=True)
    with workspace.ingesting(model, wait_seconds=60) as lease:
        done = _ingest(workspace, workspace.definition(model), files, moment(as_of), history, lease)
        kept = f"ingest {model}: {done['kept']:,} rows, {done['labels']:,} labels"
        title_run(kept + (f", {done['quarantined']:,} to quarantine" if done["quarantined"] else ""))
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
    path = find_suite(model, workspace.settings.expectation_folders)
    suite, labelled = load_suite(path), 0
    found: SourceRead | None = None
    # Where there is nothing to ingest, a definition that means other classes still codes the labels anew.
    learnt = settle(workspace.store, definition, known_coding(workspace.store, definition), at=at, batch_id="")
    untold: tuple[str, ...] = ()
    batches: list[tuple[str, Callable[[], Iterator[pd.DataFrame]]]] = []
    if files:
        for file in files:
            step("look", require_readable)(file, definition)
        batches += [(file, partial(read_parts, file, definition, PART_ROWS)) for file in files]
    else:
        found = step("read", read_new)(workspace.store, definition, as_of=at)
        history = history or found.history
        batches = [(SOURCE, found.parts)] if len(found.rows) else []
    receipts, pages = [], []
    for name, parts in batches:
        lease.require()
        validated = step("validate-and-store", ingest_batch)
        receipt, report = validated(
            workspace.store, definition, partial(_counted, name, parts), suite, source=name, as_of=at, history=history
        )
        receipts.append(receipt)
        if report is not None:
            page = write_page(workspace, definition, receipt, report, as_of=at)
            pages.append(str(page))
            text = (
                f"The whole report: [{page.name}]({page.as_uri()}) ({page})\n\n{render_markdown(report, receipt.told)}"
            )
            publish_markdown("validation", model, text, f"{name}: {receipt.verdict}")
    if found is not None and len(found.truths):  # after the rows, whose times they must not precede
        added, untold = step("label", add_source_truths)(workspace.store, definition, found, as_of=at)
        labelled, learnt = added.new + added.corrected, learnt + added.told
    if refused := [item for item in receipts if item.verdict == "refused"]:
        raise ValidationRefused(
            "; ".join(f"{item.source} was refused: {item.reasons[0] if item.reasons else ''}" for item in refused)
            + (f". The report: {', '.join(pages)}" if pages else ""),
            f"Its rows are in quarantine: mend the file, {path} or {definition.path}, then ingest it again, or "
            f"`perennial quarantine {model} release`",
        )
    made = _summary(receipts) | {"labels": labelled + sum(item.labels for item in receipts), "reports": pages}
    made["learnt"] = [*learnt, *(sentence for item in receipts for sentence in item.learnt)]
    made["told"] += [f"a truth of the {SOURCE}: {sentence}" for sentence in untold]
    return made


def _counted(name: str, parts: Callable[[], Iterator[pd.DataFrame]]) -> Iterator[pd.DataFrame]:
    """The parts, and who waits is told how far the reading is."""
    rows = 0
    for part in parts():
        yield part
        rows += len(part)
        tell(f"reading {Path(name).name}: {rows:,} rows")


def _summary(receipts: list[Receipt]) -> dict[str, Any]:
    counts = ("rows", "kept", "quarantined", "duplicates", "conflicts", "superseded")
    made: dict[str, Any] = {name: sum(getattr(item, name) for item in receipts) for name in counts}
    made["known_batches"] = sum(item.verdict == "known" for item in receipts)
    made["told"] = [f"{item.source}: {sentence}" for item in receipts for sentence in item.told]
    return made
