"""The `perennial` command: its commands' names, its one edge for errors. What a command does is in perennial.commands.

A command's module is imported when the command is called, never for `--help`: help must not wait for Prefect.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from perennial import __version__
from perennial.errors import PerennialError
from perennial.surroundings import collect_seldom

# name: (module of perennial.commands, which holds a command of that name, dashes as underscores; one line of help)
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("installation.demo", "Replay a year of flights through the real flows, and tell its story."),
    "up": ("installation.up", "Start Prefect, MLflow and the runner, and keep them running until Ctrl-C."),
    "web": ("installation.web", "Serve the page: every model at a glance, and what waits for a person."),
    "serve": ("installation.serve", "Serve the champions of all models over HTTP until Ctrl-C."),
    "deploy": (
        "installation.deploy",
        "Register all definitions with the running Prefect server.",
    ),
    "init": ("onboarding.init", "Propose a definition and a suite from a history, and try them on it."),
    "adopt": ("onboarding.adopt", "Make a model that was fitted elsewhere the first champion."),
    "remove": ("onboarding.remove", "Take a model away: shown first, backed up, then asked."),
    "models": ("lifecycle.models", "List the defined models."),
    "status": ("lifecycle.records", "Show what is live, since when and why, and the last verdict."),
    "ingest": ("lifecycle.run", "Validate files, or what is new in the source, and put them into the tables."),
    "quarantine": ("lifecycle.quarantine", "List, show, release or discard rows that were refused."),
    "reviews": ("lifecycle.reviews", "List, answer, export or import what people are asked to look at."),
    "label": ("lifecycle.run", "Add late truth from a file."),
    "retrain": ("lifecycle.run", "Train a challenger; the gate promotes it or keeps the champion."),
    "check": ("lifecycle.run", "Check the champion: a verdict with its reasons, acted on."),
    "score": ("lifecycle.run", "Score a file with the champion."),
    "backtest": ("lifecycle.backtest", "Replay the history under several policies, and recommend one."),
    "ledger": ("lifecycle.records", "List the decisions with reasons and outcomes."),
    "history": ("lifecycle.records", "List who was champion when, and why."),
    "watch": ("looking.watch", "Look at the packages, sources and APIs that the models stand on."),
    "contract": ("looking.contract", "Show the source's contract, and write it as an ODCS document."),
    "statistics": ("looking.statistics", "Show what each check's window looked like, column by column."),
    "card": ("looking.card", "Show what is known of a version, as people read it."),
    "accept": ("lifecycle.accept", "Accept data that a check called broken."),
    "approve": ("lifecycle.approve", "Promote the version that waits for a person."),
    "refuse": ("lifecycle.approve", "Refuse the version that waits for a person."),
    "prune": ("installation.prune", "Remove what nobody needs any more, as the definitions' retention says."),
    "compare": ("looking.compare", "Set two versions side by side, on the same rows."),
    "rollback": ("lifecycle.rollback", "Make an earlier champion the champion again."),
    "containerize": (
        "installation.containerize",
        "Write one version as a folder that an image is built from.",
    ),
    "doctor": (
        "installation.doctor",
        "Look for what is wrong with this installation, and name each remedy.",
    ),
    "upgrade-check": (
        "installation.upgrade_check",
        "See which predictions other packages would change, before they are installed.",
    ),
    "backup": ("installation.backup", "Copy everything that is ours into a new folder, while it runs."),
    "restore": ("installation.backup", "Put a backup into an empty home."),
    "migrate": (
        "installation.migrate",
        "Bring home and tables to this version's layout, a copied home to its new place.",
    ),
    "validate-config": (
        "lifecycle.validate_config",
        "Check every definition, its suite and the code that it names.",
    ),
}


# What the warm process of `perennial up` is handed: short commands, most of whose time would be imports.
QUICK = frozenset(
    {"models", "status", "ingest", "quarantine", "label", "check", "score", "ledger", "history", "accept", "approve",
     "refuse", "reviews", "rollback", "statistics"}
)  # fmt: skip


class _LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"perennial.commands.{COMMANDS[cmd_name][0]}")
        command = getattr(module, cmd_name.replace("-", "_"))
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"Known are: {', '.join(COMMANDS)}."
            ctx.fail(f"no command {args[0]!r}. {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder of all state; as PERENNIAL_HOME. Default: .perennial",
)
@click.version_option(__version__, prog_name="perennial")
@click.pass_context
def cli(ctx: click.Context, home: Path | None) -> None:
    """Keep deployed scikit-learn models fresh, and prove when they should not be retrained."""
    if home is not None:  # through the environment, so that servers and flow runs see it too
        os.environ["PERENNIAL_HOME"] = str(home.expanduser().resolve())
    # Prefect's log is switched on or off when it is imported.
    if ctx.obj and ctx.invoked_subcommand in QUICK and "--verbose" not in ctx.obj:
        from perennial.operate.handover import hand_over

        place = Path(os.environ.get("PERENNIAL_HOME", ".perennial")).expanduser().resolve()
        if (code := hand_over(place, ctx.obj)) is not None:
            ctx.exit(code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code: 0 fine, 1 refused or failed, 2 wrong usage, 130 interrupted.

    Anything but a `PerennialError` is a bug and keeps its traceback.

    Args:
        arguments: Run here, by this process; those of the process, which may be handed over, by default.
    """
    if arguments is None:
        collect_seldom()
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        result: Any = cli.main(
            args=given, prog_name="perennial", standalone_mode=False, obj=given if arguments is None else None
        )
    except PerennialError as error:
        click.echo(f"error: {' '.join(str(error).split())}", err=True)
        return 1
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.UsageError as error:
        error.show()
        return 2
    except click.ClickException as error:
        click.echo(f"error: {error.format_message()}", err=True)
        return 1
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return 130
    return result if isinstance(result, int) else 0


if __name__ == "__main__":
    sys.exit(main())
