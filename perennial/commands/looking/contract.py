"""`perennial contract`: what the source promises and gives, and that as an ODCS document."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from perennial.commands.output import print_json, print_table
from perennial.commands.running import as_of_option, json_option


@click.command()
@click.argument("model")
@click.option(
    "--export", "target", type=click.Path(dir_okay=False, path_type=Path), help="Write it to this file, ODCS v3 YAML."
)
@as_of_option
@json_option
def contract(model: str, target: Path | None, as_of: datetime | None, as_json: bool) -> None:
    """The columns of MODEL's source beside the contract that its definition names (`watch.contract`), if it does.

    With --export, what the source has in its newest window, and the contract's units, as an ODCS document: name it in
    the definition, and what it says is held to it from then on.
    """
    from perennial.errors import DataError
    from perennial.workspace import open_workspace
    from tasks.watch.contract import broken, export_contract, mended, roles
    from tasks.watch.looking import named_contract, source_columns

    definition = open_workspace().definition(model)
    at = as_of or datetime.now(UTC)
    agreed, found = named_contract(definition), source_columns(definition, at=at)
    if agreed is None and found is None:
        raise DataError(f"the source of {model} has no row in the newest window", "Look at an earlier one: --as-of")
    known = mended(found, agreed or {}) if found is not None else {name: dict(each) for name, each in agreed.items()}  # type: ignore[union-attr]
    items = list(broken(agreed, found, definition)) if agreed is not None and found is not None else []
    if target is not None:
        if target.exists():
            raise DataError(f"{target} exists already", "Name another file, or move it away")
        target.write_text(export_contract(definition, known), encoding="utf-8")
    if as_json:
        print_json({"model": model, "contract": agreed, "source": found, "broken": [item.detail for item in items]})
        return
    used = roles(definition)
    rows = []
    for name in dict.fromkeys([*(agreed or {}), *(found or {})]):
        said, come = (agreed or {}).get(name), (found or {}).get(name)
        rows.append((name, used.get(name, "–"), _told(said), _told(come), str((said or {}).get("unit", "–"))))
    print_table(("column", "the model's", "contract", "source", "unit"), rows)
    for item in items:
        click.echo(f"{'!!' if item.grave else '! '} {item.detail}")
    if target is not None:
        click.echo(f"wrote {target}: name it in {definition.path}: `watch: {{contract: …}}`")


def _told(column: object) -> str:
    if not isinstance(column, dict):
        return "–"
    return f"{column['type'] or 'not compared'}, {'may be missing' if column['nullable'] else 'always there'}"
