"""`perennial validate-config`: what can be said about definitions, and of one on a file, without any server."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from perennial.commands.output import print_json

if TYPE_CHECKING:
    from perennial.definition import ModelDefinition
    from perennial.settings import Settings


@click.command("validate-config")
@click.argument("model", required=False)
@click.option("--data", type=click.Path(dir_okay=False, path_type=Path), help="Try MODEL on this file; keep nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.option("--schema", is_flag=True, help="Print the definitions' JSON schema instead, for editors.")
@click.option(
    "--write",
    type=click.Path(dir_okay=False, path_type=Path),
    help="With --schema: write it to this file, such as deployments/model.schema.json.",
)
def validate_config(model: str | None, data: Path | None, as_json: bool, schema: bool, write: Path | None) -> None:
    """Check every definition (or MODEL's), its suite and the code that it names; with --data, on rows of a file."""
    if data and not model:
        raise click.UsageError("--data needs a MODEL")
    if write and not schema:
        raise click.UsageError("--write needs --schema")
    if schema:
        _schema(write)
        return
    from perennial.errors import DefinitionError
    from perennial.settings import load_settings

    findings = _findings(load_settings(), model)
    wrong = [problem for finding in findings for problem in finding.problems]
    if as_json and (wrong or not data):
        print_json(findings)
    elif not as_json:
        for finding in findings:
            for problem in finding.problems or (f"ok: {finding.path}",):
                click.echo(problem)
    if wrong:
        files = sum(bool(finding.problems) for finding in findings)
        raise DefinitionError(
            f"{len(wrong)} problem{'s' * (len(wrong) > 1)} in {files} of {len(findings)} definitions",
            "Correct what is named on the standard output",
        )
    if model and data:
        _try_on(model, data, as_json)


def _try_on(model: str, data: Path, as_json: bool) -> None:
    from perennial.errors import DataError
    from perennial.workspace import open_workspace
    from tasks.rehearsal.rehearse import rehearse
    from tasks.validation.suites import find_suite, load_suite

    workspace = open_workspace()
    suite = load_suite(find_suite(model, workspace.settings.expectation_folders))
    lines = []
    for line in rehearse(workspace.definition(model), suite, data, as_of=datetime.now(UTC)):
        lines.append(line)
        if not as_json:
            click.echo(f"{'PROBLEM' if line.problem else 'ok':<8}{line.topic:<8} {line.text}")
    if as_json:
        print_json(lines)
    if count := sum(line.problem for line in lines):
        raise DataError(
            f"{count} problem{'s' * (count > 1)} with {data} as {model} reads it",
            "Correct the file, the definition or the suite as is said on the standard output",
        )


@dataclass(frozen=True)
class Finding:
    """A definition's file and what is wrong with it: nothing, if all is well."""

    path: Path
    problems: tuple[str, ...]


def _findings(settings: Settings, model: str | None = None) -> list[Finding]:
    """One for each definition, or for this model's, all problems together, so that a team corrects them in one go.

    Raises:
        DefinitionError: A folder is missing, or none has a definition.
        NotFoundError: None is this model's.
    """
    from perennial.definition import NOT_MODELS
    from perennial.errors import DefinitionError, NotFoundError

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
    if model and not (paths := [path for path in paths if path.stem == model]):
        raise NotFoundError(f"there is no model {model!r} in {settings.models}", f"Write {model}.yaml there")
    first: dict[str, Path] = {}
    findings = []
    for path in paths:
        problems = _problems(path, settings)
        if first.setdefault(path.stem, path) != path:
            problems.append(f"{path}: name: {path.stem!r} is taken by {first[path.stem]}. Rename one.")
        findings.append(Finding(path, tuple(problems)))
    return findings if model else findings + _automations(settings, list(first))


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
    from perennial.errors import DefinitionError
    from tasks.validation.fitness import known_columns, unfit_expectations
    from tasks.validation.suites import find_suite, load_suite

    path = find_suite(definition.name, settings.expectation_folders)
    suite = load_suite(path, known_columns(definition))
    if unfit := unfit_expectations(suite, definition):
        raise DefinitionError(f"{path}: {'; '.join(unfit)}")


def _check_code(definition: ModelDefinition, _settings: Settings) -> None:
    from perennial.model.plugins import load_attribute

    for specification in (definition.training.estimator, definition.data.source.loader):
        if specification and ":" in specification:
            load_attribute(specification, definition.folder)
    if ":" not in definition.training.estimator:
        from tasks.learning.estimators import build_pipeline

        build_pipeline(definition, {}, definition.training.seed)


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
