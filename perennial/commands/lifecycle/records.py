"""`perennial status`, `ledger` and `history`: what was written down. They change nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from perennial.commands.output import print_json, print_records
from perennial.commands.running import Moment, json_option

if TYPE_CHECKING:
    from perennial.definition import ModelDefinition
    from perennial.workspace import Workspace


@click.command()
@click.argument("model", required=False)
@json_option
def status(model: str | None, as_json: bool) -> None:
    """Show what is live, since when and why, and the last check's verdict."""
    from perennial.workspace import open_workspace

    workspace = open_workspace()
    names = [model] if model else list(workspace.definitions())
    rows = [describe_status(workspace, name) for name in names]
    if as_json:
        print_json(rows)
        return
    columns = ("model", "champion", "since", "verdict", "checked")
    records = [([str(row[name] or "").replace("T", " ") for name in columns], _told(row)) for row in rows]
    print_records(columns, records)


@click.command()
@click.argument("model")
@json_option
def ledger(model: str, as_json: bool) -> None:
    """List the model's decisions, oldest first: verdict, reasons, who carried them out, and the outcome."""
    from perennial.workspace import open_workspace

    workspace = open_workspace()
    workspace.definition(model)
    entries = workspace.ledger(model).entries()
    if as_json:
        print_json(entries)
        return
    records = [
        (
            (
                entry["as_of"][:16].replace("T", " "),
                entry["verdict"],
                entry["champion_version"],
                (entry["outcome"] or {}).get("gate_verdict", "claimed" if entry["claimed_by"] else ""),
                entry["decision_id"][:8],
            ),
            entry["reasons"][:1],
        )
        for entry in entries
    ]
    print_records(("as of", "verdict", "champion", "outcome", "decision"), records)


@click.command()
@click.argument("model")
@click.option("--at", type=Moment(), help="Only who was champion at this moment, ISO 8601.")
@json_option
def history(model: str, at: datetime | None, as_json: bool) -> None:
    """List who was champion when, why, and who let it in."""
    from perennial.errors import NotFoundError
    from perennial.workspace import open_workspace

    workspace = open_workspace()
    workspace.definition(model)
    lines = workspace.registry.history(model)
    if at is not None:
        reign = workspace.registry.reign(model, as_of=at)
        if reign is None:
            raise NotFoundError(
                f"{model} had no champion at {at:%Y-%m-%d %H:%M}", f"See `perennial history {model}` for all of them"
            )
        lines = [reign]
    if as_json:
        print_json(lines)
        return
    records = [((f"{line.at:%Y-%m-%d %H:%M}", line.version, line.action, line.by), [line.reason]) for line in lines]
    print_records(("from", "version", "action", "by"), records)


def _told(row: dict[str, Any]) -> list[str]:
    """What stands below a model's line."""
    counts = f"{row['rows']:,} rows, {row['labels']:,} labels, {row['predictions']:,} predictions"
    told = [row["why"], counts + (f"; fast path: {row['fast_path']}" if row["fast_path"] else "")]
    if row["reviews"]:
        told.append(f"{row['reviews']} predictions wait for review (perennial reviews {row['model']})")
    if row["waiting"]:
        told.append(f"waits for a person: version {row['waiting']} (perennial approve {row['model']} --reason WHY)")
    if row["in_doubt"]:
        told.append(f"waits for evidence: version {row['in_doubt']}")
    return told


def describe_status(workspace: Workspace, model: str) -> dict[str, Any]:
    """What `perennial status` says of a model."""
    from perennial.model.truth import standing
    from perennial.state.approval import pending

    definition = workspace.definition(model)
    reign = workspace.registry.reign(model)
    entries = workspace.ledger(model).entries()
    last = entries[-1] if entries else None
    store = workspace.store
    waiting = [version.number for version in pending(workspace.registry, model)]
    doubted = [version for version in workspace.registry.versions(model) if version.tag("waiting") == "for evidence"]
    return {
        "model": model,
        "champion": reign.version if reign else None,
        "since": f"{reign.at:%Y-%m-%d %H:%M}" if reign else None,
        "why": reign.reason if reign else "no champion yet: perennial retrain " + model,
        "rows": store.count(model, "batches"),
        "labels": len(standing(store.read(model, "labels", columns=["id", "truth", "labelled_at"]))),
        "predictions": store.count(model, "predictions"),
        "verdict": last["verdict"] if last else None,
        "checked": last["as_of"][:16] if last else None,
        "reasons": last["reasons"] if last else [],
        "reviews": _reviews(workspace, definition),
        "waiting": ", ".join(str(number) for number in waiting),
        "in_doubt": ", ".join(str(version.number) for version in doubted),
        "fast_path": _fast_path(workspace, model, reign.version) if reign else None,
    }


def _reviews(workspace: Workspace, definition: ModelDefinition) -> int:
    """How many predictions wait for a person."""
    from perennial.review.desk import Desk

    if not definition.review.per_day:
        return 0
    items = Desk(workspace.store, definition, None).recent(datetime.now(UTC))
    return sum(item.waits for item in items.values())


def _fast_path(workspace: Workspace, model: str, version: int) -> str | None:
    """What the API found when it last loaded the version; None where it never did."""
    from perennial.serving.scoring import ANY_ROWS
    from perennial.serving.versions.cache import read_proof

    proof = read_proof(workspace.home, model, version)
    if proof is None:
        return None
    any_rows = proof["fast_rows"] >= ANY_ROWS
    if proof["kind"] == "none":
        return f"none: {proof['reason']}"
    return f"{proof['kind']} for any number of rows" if any_rows else f"{proof['kind']} up to {proof['fast_rows']} rows"
