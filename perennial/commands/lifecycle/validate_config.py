"""`perennial validate-config`: what can be said about the definitions without reading any data."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from perennial.commands.output import print_json

if TYPE_CHECKING:
    from perennial.definition import ModelDefinition
    from perennial.settings import Settings


@click.command("validate-config")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.option("--schema", is_flag=True, help="Print the definitions' JSON schema instead, for editors.")
@click.option(
    "--write",
    type=click.Path(dir_okay=False, path_type=Path),
    help="With --schema: write it to this file, such as deployments/model.schema.json.",
)
def validate_config(as_json: bool, schema: bool, write: Path | None) -> None:
    """Check every definition, its expectation suite and the code that it names."""
    if write and not schema:
        raise click.UsageError("--write needs --schema")
    if schema:
        _schema(write)
        return
    from perennial.errors import DefinitionError
    from perennial.settings import load_settings

    findings = _findings(load_settings())
    wrong = [problem for finding in findings for problem in finding.problems]
    if as_json:
        print_json(findings)
    else:
        for finding in findings:
            for problem in finding.problems or (f"ok: {finding.path}",):
                click.echo(problem)
    if wrong:
        files = sum(bool(finding.problems) for finding in findings)
        raise DefinitionError(
            f"{len(wrong)} problem{'s' * (len(wrong) > 1)} in {files} of {len(findings)} definitions",
            "Correct what is named on the standard output",
        )


@dataclass(frozen=True)
class Finding:
    """A definition's file and what is wrong with it: nothing, if all is well."""

    path: Path
    problems: tuple[str, ...]


def _findings(settings: Settings) -> list[Finding]:
    """One for each definition, all problems together, so that a team corrects them in one go.

    Raises:
        DefinitionError: A folder is missing, or none has a definition.
    """
    from perennial.definition import NOT_MODELS
    from perennial.errors import DefinitionError

    for folder in settings.model_folders:
        if not folder.is_dir():
            raise DefinitionError(f"the models' folder {folder} does not exist", "Make it, or set PERENNIAL_MODELS")
    paths = [
        path
        for folder in settings.model_folders
        for path in sorted(folder.glob("*.yaml"))
        if path.name not in NOT_MODELS
    ]
    if not paths:
        raise DefinitionError(f"no model is defined in {settings.models}", "Write a NAME.yaml there")
    first: dict[str, Path] = {}
    findings = []
    for path in paths:
        problems = _problems(path, settings)
        if first.setdefault(path.stem, path) != path:
            problems.append(f"{path}: name: {path.stem!r} is taken by {first[path.stem]}. Rename one.")
        findings.append(Finding(path, tuple(problems)))
    return findings + _automations(settings, list(first))


def _automations(settings: Settings, models: list[str]) -> list[Finding]:
    from deployments.automation_config import load_automations
    from perennial.definition import AUTOMATIONS_FILE
    from perennial.errors import DefinitionError

    paths = [path for folder in settings.model_folders if (path := folder / AUTOMATIONS_FILE).exists()]
    try:
        load_automations(settings.model_folders, dict.fromkeys(models))
    except DefinitionError as error:
        return [Finding(paths[0], (str(error),))]
    return [Finding(path, ()) for path in paths]


def _problems(path: Path, settings: Settings) -> list[str]:
    from perennial.definition import load_definition
    from perennial.errors import PerennialError

    try:
        definition = load_definition(path)
    except PerennialError as error:
        return [str(error)]
    problems = []
    for check in (_check_suite, _check_code):
        try:
            check(definition, settings)
        except PerennialError as error:
            text = str(error)
            problems.append(text if text.startswith(str(path)) else f"{path}: {text}")
    return problems


def _check_suite(definition: ModelDefinition, settings: Settings) -> None:
    from tasks.validation.suites import find_suite, load_suite

    load_suite(find_suite(definition.name, settings.expectation_folders))


def _check_code(definition: ModelDefinition, _settings: Settings) -> None:
    from perennial.model.plugins import load_attribute

    for specification in (definition.training.estimator, definition.data.source.loader):
        if specification and ":" in specification:
            load_attribute(specification, definition.folder)


def schema_text() -> str:
    """The JSON schema as the committed file has it."""
    from perennial.definition import json_schema

    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def _schema(path: Path | None) -> None:
    if path is None:
        click.echo(schema_text(), nl=False)
        return
    path.write_text(schema_text(), encoding="utf-8")
    click.echo(f"wrote {path}")
