"""`perennial ingest`, `label`, `retrain`, `check` and `score`: they run what the deployments run, now."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from perennial.commands.lifecycle.check_all import check_all
from perennial.commands.output import print_json
from perennial.commands.running import as_of_option, flow_environment, json_option, require_files

if TYPE_CHECKING:
    from perennial.definition import ModelDefinition

_verbose = click.option("--verbose", is_flag=True, help="Show Prefect's log.")


@click.command()
@click.argument("model")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@as_of_option
@click.option("--history", is_flag=True, help="The files are the past: they count as known when they happened.")
@json_option
@_verbose
def ingest(
    model: str, files: tuple[Path, ...], as_of: datetime | None, history: bool, as_json: bool, verbose: bool
) -> None:
    """Validate FILES (or what is new in the model's source) and put them into the tables."""
    require_files(files)
    paths = [str(path.resolve()) for path in files]
    if _nothing_to_ingest(model, paths, as_of or datetime.now(UTC)):
        if as_json:
            print_json(dict.fromkeys(_COUNTS, 0) | {"told": [], "reports": [], "learnt": []})
        else:
            click.echo(f"0 rows: the source of {model} has nothing new")
        return
    with flow_environment(verbose=verbose):
        from flows.ingest import ingest as flow

        result = flow(model, files=paths or None, as_of=as_of, history=history)
    if as_json:
        print_json(result)
        return
    click.echo(
        f"{result['kept']} of {result['rows']} rows kept, {result['quarantined']} quarantined, "
        f"{result['duplicates']} known already, {result['labels']} labels"
        + (f", {result['known_batches']} batches known already" if result["known_batches"] else "")
        + (f", {result['superseded']} rows of the quarantine mended" if result["superseded"] else "")
    )
    for sentence in result["learnt"]:
        click.echo(sentence)
    for sentence in result["told"]:
        click.echo(f"quarantined: {sentence}")
    if result["quarantined"]:
        click.echo(f"see `perennial quarantine {model}`")
    for page in result["reports"]:
        click.echo(f"report: {page}")


_COUNTS = ("rows", "kept", "quarantined", "duplicates", "conflicts", "superseded", "known_batches", "labels")


def _nothing_to_ingest(model: str, paths: list[str], at: datetime) -> bool:
    """Whether that can be told without a flow run; what is wrong is told before any server is started."""
    from perennial.workspace import open_workspace
    from tasks.rows.files import require_readable
    from tasks.rows.source import require_source
    from tasks.steps.source import is_first, is_nothing_new, read_new
    from tasks.validation.suites import find_suite

    workspace = open_workspace()
    definition = workspace.definition(model)
    find_suite(model, workspace.settings.expectation_folders)
    for path in paths:
        require_readable(path, definition)
    if paths:
        return False
    require_source(definition)
    if is_first(workspace.store, model):
        return False
    found = read_new(workspace.store, definition, as_of=at)
    return is_nothing_new(workspace.store, definition, found, as_of=at)


@click.command()
@click.argument("model")
@click.argument("file", type=click.Path(path_type=Path))
@as_of_option
@click.option("--author", default="file", show_default=True, help="Who says so.")
@json_option
def label(model: str, file: Path, as_of: datetime | None, author: str, as_json: bool) -> None:
    """Add late truth: a file with the model's id and target columns, and perhaps labelled_at."""
    require_files([file])
    from perennial.workspace import open_workspace
    from tasks.rows.files import read_file
    from tasks.rows.labels import label_frame, refusals_told

    workspace = open_workspace()
    definition = workspace.definition(model)
    at = as_of or datetime.now(UTC)
    witness = author != "file"
    receipt = label_frame(
        workspace.store, definition, read_file(file, definition), as_of=at, author=author, witness=witness
    )
    if as_json:
        print_json(receipt)
        return
    click.echo(
        f"{receipt.new} new labels, {receipt.corrected} corrected, {receipt.unchanged} unchanged, "
        f"{receipt.missing} rows without truth" + (f", {receipt.taken_back} taken back" if receipt.taken_back else "")
    )
    for sentence in receipt.told:
        click.echo(sentence)
    if receipt.unknown:
        shown = ", ".join(receipt.unknown[:5]) + (", …" if len(receipt.unknown) > 5 else "")
        click.echo(f"{len(receipt.unknown)} ids are neither ingested nor predicted: {shown}", err=True)
    if receipt.refused:
        click.echo(f"{len(receipt.refused)} rows were refused: {refusals_told(receipt.refused)}", err=True)


@click.command()
@click.argument("model")
@as_of_option
@click.option("--decision", "decision_id", help="Carry out this decision of the ledger.")
@click.option("--force", is_flag=True, help="Train although the newest check asks for repair.")
@click.option("--again", is_flag=True, help="While developing: judge on the same newest rows once more, and say so.")
@click.option("--yes", "promote", is_flag=True, help="With --again: let it in over a live champion.")
@json_option
@_verbose
def retrain(
    model: str, as_of: datetime | None, decision_id: str | None, force: bool, again: bool, promote: bool,
    as_json: bool, verbose: bool,
) -> None:  # fmt: skip
    """Train a challenger; the gate promotes it or keeps the champion."""
    if promote and not again:
        raise click.UsageError("--yes goes with --again: otherwise the gate decides")
    from perennial.workspace import open_workspace
    from tasks.rows.frames import require_ingested

    workspace = open_workspace()
    require_ingested(workspace.store, workspace.definition(model).name)
    with flow_environment(verbose=verbose):
        from flows.retrain import retrain as flow

        result = flow(model, as_of=as_of, decision_id=decision_id, force=force, again=again, promote=promote)
    if as_json:
        print_json(result)
        return
    done = "is champion now" if result["promoted"] else "is registered as challenger"
    if result["waits_for_approval"]:
        done = f"waits for a person: perennial approve {model} --reason WHY"
    if result["waits_for_evidence"]:
        done = "waits for evidence: each check looks again, on rows that neither it nor the champion has seen"
    click.echo(f"{result['gate']}: version {result['version']} {done}. {result['reason']}")


@click.command()
@click.argument("model", required=False)
@click.option("--all", "every", is_flag=True, help="Every model that has a champion, one after the other.")
@as_of_option
@click.option("--dry-run", is_flag=True, help="Decide and print only: no ledger, no retraining, no Prefect.")
@json_option
@_verbose
def check(model: str | None, every: bool, as_of: datetime | None, dry_run: bool, as_json: bool, verbose: bool) -> None:
    """Check the champion: a verdict with its reasons, written into the ledger and acted on."""
    if (model is None) is not every:
        raise click.UsageError("name a MODEL, or give --all")
    if model is None:
        check_all(as_of, dry_run=dry_run, as_json=as_json, verbose=verbose)
        return
    from perennial.workspace import open_workspace
    from tasks.check.decision import Decision
    from tasks.check.text import render_text

    if dry_run:
        from tasks.steps.monitor import run_check
        from tasks.steps.shown.examples import find_examples, lines

        workspace = open_workspace()
        definition = workspace.definition(model)
        found = run_check(workspace, definition, as_of=as_of or datetime.now(UTC))
        decision = found.to_dict() | {"examples": lines(find_examples(workspace, definition, found))}
    else:
        _require_champion(model)
        with flow_environment(verbose=verbose):
            from flows.monitor import monitor

            decision = monitor(model, as_of=as_of)
    if as_json:
        print_json(decision)
        return
    click.echo(render_text(Decision.from_dict(decision), decision["examples"]))
    if decision.get("report"):
        click.echo(f"report: {decision['report']}")


@click.command()
@click.argument("model")
@click.argument("input", type=click.Path(path_type=Path))
@click.argument("output", type=click.Path(path_type=Path))
@as_of_option
@json_option
@_verbose
def score(model: str, input: Path, output: Path, as_of: datetime | None, as_json: bool, verbose: bool) -> None:
    """Score the rows of INPUT with the champion into OUTPUT (.parquet or .csv), and log them."""
    require_files([input])
    from tasks.rows.files import require_readable
    from tasks.steps.score import require_target

    require_target(output)
    require_readable(input, _require_champion(model))
    with flow_environment(verbose=verbose):
        from flows.score import score as flow
        from perennial.model.answers.noticed import say

        result = flow(model, input=str(input.resolve()), output=str(output.resolve()), as_of=as_of)
    if as_json:
        print_json(result)
        return
    click.echo(f"{result['rows']} rows scored with version {result['version']} into {output}")
    for warning in result["warnings"]:
        click.echo(f"warning: {say(warning)}", err=True)


def _require_champion(model: str) -> ModelDefinition:
    """The definition of a model that has a champion; without one no server need be started."""
    from perennial.errors import NotFoundError
    from perennial.workspace import open_workspace

    workspace = open_workspace()
    definition = workspace.definition(model)
    if not workspace.registry.history(model):
        raise NotFoundError(f"{model} has no champion yet", f"Train one: `perennial retrain {model}`")
    return definition
