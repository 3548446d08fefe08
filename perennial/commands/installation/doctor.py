"""`perennial doctor`."""

from __future__ import annotations

import click

from perennial.commands.output import print_json
from perennial.commands.running import json_option

_SIGNS = {"ok": "✓", "warning": "▲", "error": "✗"}


@click.command()
@json_option
def doctor(as_json: bool) -> int:
    """Look for what is wrong with this installation, and name the remedy of each finding; exit code 1 for errors."""
    from perennial.operate.doctor import examine, summary
    from perennial.settings import load_settings

    found = examine(load_settings())
    counts = summary(found)
    if as_json:
        print_json({"findings": found, "counts": counts})
        return int(counts["error"] > 0)
    for item in found:
        click.echo(f"{_SIGNS[item.status]} {item.check:12} {item.detail}")
        if item.remedy:
            click.echo(f"{'':15}→ {item.remedy}")
    click.echo(f"{counts['error']} errors, {counts['warning']} warnings, {counts['ok']} fine")
    return int(counts["error"] > 0)
