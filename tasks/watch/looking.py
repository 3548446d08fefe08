"""The edge of watching: reads locks, advisories, the source and documents, keeps each version, says what changed."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from datetime import datetime
from glob import glob
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd

from perennial.definition import ModelDefinition
from perennial.definition.watch import Packages
from perennial.errors import DataError, NotFoundError, PerennialError, ServiceError
from perennial.model import pins
from perennial.redaction import redact
from perennial.state.registry import Version
from perennial.surroundings import child_environment, python_command
from perennial.workspace import Workspace
from tasks.alerts.item import Item
from tasks.rows.source import read_source
from tasks.watch.advisories import Weakness, weaknesses
from tasks.watch.columns import Contract, changes, contract_of
from tasks.watch.contract import broken, contract_changes, read_contract
from tasks.watch.openapi import breaking, operations

_ASK_SECONDS = 20.0


def look_around(workspace: Workspace, definition: ModelDefinition, *, at: datetime) -> list[Item]:
    """What stands against the model of all that its definition's `watch` names, the gravest first.

    What can't be looked at is an item itself: the rest is looked at all the same.
    """
    policy = definition.watch
    if policy is None:
        return []
    looks = {
        "packages": policy.packages and (lambda: _packages(workspace, definition, policy.packages)),
        "source": (policy.source or policy.contract) and (lambda: _source(workspace, definition, at)),
        "openapi": policy.openapi and (lambda: _openapi(workspace, definition, at)),
    }
    found: list[Item] = []
    for name, look in looks.items():
        try:
            found += look() if look else ()
        except PerennialError as error:
            title = f"the watch could not look at its {name}"
            found.append(Item(f"watch:{name}:unseen", "watch", title, error.problem, error.remedy or "Look why"))
    return sorted(found, key=lambda item: not item.grave)


def version_lock(workspace: Workspace, version: Version) -> dict[str, str]:
    """The packages that serve a version: of the lock that was recorded with it, or those that the model names.

    Raises:
        NotFoundError: Neither is there.
    """
    if version.tag(pins.LOCK_TAG):
        return pins.locked(workspace.registry.run_artifact(version, pins.LOCK_FILE).read_text(encoding="utf-8"))
    named = workspace.registry.artifacts(version) / "requirements.txt"
    if not named.exists():
        raise NotFoundError(
            f"version {version.number} of {version.model} has neither a lock nor requirements",
            f"Train a new one: `perennial retrain {version.model}`",
        )
    lines = [line for line in named.read_text(encoding="utf-8").splitlines() if "==" in line]
    return pins.locked("\n".join(lines))


def _packages(workspace: Workspace, definition: ModelDefinition, policy: Packages | None) -> Iterator[Item]:
    champion = workspace.registry.champion(definition.name)
    if policy is None or champion is None:
        return
    locked = version_lock(workspace, champion)
    found: list[Weakness] = []
    for source, document in _documents(definition, policy, locked):
        found += weaknesses(locked, document, source)
    for name in sorted({item.package for item in found}):
        yield _vulnerable(definition.name, champion.number, [item for item in found if item.package == name])
    if policy.index:
        yield from _uninstallable(locked, policy.index, definition.name)


def _vulnerable(model: str, number: int, found: list[Weakness]) -> Item:
    first, ids = found[0], tuple(sorted({item.id for item in found}))
    fixed = [version for item in found for version in item.fixed]
    told = ", ".join(ids[:5]) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")
    summary = f": {first.summary}" if first.summary else ""
    to_do = f"Raise it in the lock (fixed in {', '.join(sorted(set(fixed)))})" if fixed else "No fix is named: see them"
    return Item(
        f"watch:package:{first.package}", "watch", f"a package that serves it is vulnerable: {first.package}",
        f"version {number} of {model} is served with {first.package} {first.version}, named by {told}{summary}",
        f"{to_do}, and retrain: a version keeps its packages", ids, grave=True,
    )  # fmt: skip


def _documents(definition: ModelDefinition, policy: Packages, locked: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    if policy.advisories:
        pattern = str(definition.folder / os.path.expandvars(policy.advisories))
        paths = sorted(glob(pattern, recursive=True))  # noqa: PTH207 - patterns may be absolute
        if not paths:
            raise DataError(f"no file of advisories matches {pattern}", "Correct watch.packages.advisories")
        for path in paths:
            yield path, _json(Path(path).read_text(encoding="utf-8"), path)
    if policy.service:
        yield f"pip-audit's {policy.service} service", _ask_service(policy, locked)


def _ask_service(policy: Packages, locked: Mapping[str, str]) -> Any:
    if find_spec("pip_audit") is None:
        raise NotFoundError("watch.packages.service needs pip-audit", "Install it: pip install pip-audit")
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "requirements.txt"
        listed.write_text("\n".join(f"{name}=={version}" for name, version in locked.items()), encoding="utf-8")
        command = python_command(
            "pip_audit", "--requirement", str(listed), "--disable-pip", "--no-deps", "--format", "json",
            "--progress-spinner", "off", "--vulnerability-service", str(policy.service), "--cache-dir", folder,
            *(["--osv-url", policy.osv_url] if policy.osv_url else []),
        )  # fmt: skip
        run = subprocess.run(  # noqa: S603
            command, env=child_environment(), capture_output=True, text=True, timeout=900, check=False
        )
    if run.returncode not in (0, 1) or not run.stdout.strip():  # 1: something was found
        told = redact(" ".join(run.stderr.split())[-300:])
        raise ServiceError(f"pip-audit got no answer: {told}", "Look at the network, or give watch.packages.advisories")
    return _json(run.stdout, "pip-audit's answer")


def _uninstallable(locked: Mapping[str, str], index: str, model: str) -> Iterator[Item]:
    """The locked versions that the index does not offer any more, or warns of."""
    import httpx
    from packaging.utils import canonicalize_name

    gone, yanked = [], []
    with httpx.Client(timeout=_ASK_SECONDS, follow_redirects=True) as client:
        for name, version in locked.items():
            answer = _get(
                client, f"{index.rstrip('/')}/{canonicalize_name(name)}/", "application/vnd.pypi.simple.v1+json"
            )
            files = [] if answer is None else _files_of(_json(answer, index), version)
            if not files:
                gone.append(f"{name} {version}")
            elif all(item.get("yanked") for item in files):
                yanked.append(f"{name} {version}")
    for key, title, names in (
        ("gone", "packages can't be installed any more", gone), ("yanked", "packages were withdrawn", yanked),
    ):  # fmt: skip
        if names:
            detail = f"{', '.join(names[:10])}, which serve {model}"
            to_do = "Raise them in the lock, and retrain: a version keeps its packages"
            yield Item(f"watch:index:{key}", "watch", title, detail, to_do, tuple(sorted(names)), key == "gone")


def _files_of(answer: Any, version: str) -> list[Any]:
    from packaging.utils import InvalidSdistFilename, InvalidWheelFilename, parse_sdist_filename, parse_wheel_filename
    from packaging.version import Version as Number

    found = []
    for item in answer["files"]:
        name = item["filename"]
        try:
            number = parse_wheel_filename(name)[1] if name.endswith(".whl") else parse_sdist_filename(name)[1]
        except (InvalidWheelFilename, InvalidSdistFilename):
            continue  # of before there were rules for names
        if number == Number(version):
            found.append(item)
    return found


def _source(workspace: Workspace, definition: ModelDefinition, at: datetime) -> Iterator[Item]:
    """Against the contract, and against what stood when the champion came: one thing that is both is told once."""
    policy = definition.watch
    assert policy is not None
    contract = named_contract(definition)
    if contract is not None:
        yield from contract_changes(keep(workspace, definition.name, "contract", contract, at=at), contract, definition)
    now = source_columns(definition, at=at)
    if now is None:
        return
    found = [] if contract is None else list(broken(contract, now, definition))
    yield from found
    if policy.source:
        told = {item.key.removeprefix("watch:contract:") for item in found}
        before = keep(workspace, definition.name, "source", now, at=at)
        yield from (
            item for item in changes(before, now, definition) if item.key.removeprefix("watch:source:") not in told
        )


def named_contract(definition: ModelDefinition) -> Contract | None:
    """The columns of the contract that the definition names; None where it names none.

    Raises:
        DataError: It is absent, or no contract.
    """
    policy = definition.watch
    if policy is None or policy.contract is None:
        return None
    document = _document(definition, policy.contract, None, key="watch.contract")
    return read_contract(document, redact(policy.contract), policy.contract_table)


def source_columns(definition: ModelDefinition, *, at: datetime) -> dict[str, dict[str, Any]] | None:
    """The columns of the source in the newest window; None where it has no row."""
    frame = read_source(definition, at - definition.monitoring.window, at)
    return contract_of(frame) if len(frame) else None


def _openapi(workspace: Workspace, definition: ModelDefinition, at: datetime) -> Iterator[Item]:
    policy = definition.watch
    assert policy is not None
    assert policy.openapi
    now = operations(_document(definition, policy.openapi, policy.openapi_token_env), policy.openapi)
    yield from breaking(keep(workspace, definition.name, "openapi", now, at=at), now)


def _document(
    definition: ModelDefinition, address: str, token_env: str | None, key: str = "watch.openapi"
) -> Any:  # fmt: skip
    import httpx
    import yaml

    if address.startswith(("http://", "https://")):
        token = os.environ.get(token_env or "")
        if token_env and not token:
            raise DataError(f"the environment variable {token_env} is not set", "Put the API's token there")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        with httpx.Client(timeout=_ASK_SECONDS, follow_redirects=True, headers=headers) as client:
            text = _get(client, address, "application/json, application/yaml")
        if text is None:
            raise DataError(f"there is no document at {redact(address)}", f"Correct {key} in the definition")
    else:
        path = definition.folder / os.path.expandvars(address)
        if not path.exists():
            raise DataError(f"there is no file {path}", f"Correct {key} in the definition")
        text = path.read_text(encoding="utf-8")
    try:
        return yaml.safe_load(text)  # of which JSON is a part
    except yaml.YAMLError as error:
        raise DataError(f"{redact(address)} is neither JSON nor YAML", f"Correct {key}") from error


def _get(client: Any, url: str, accept: str) -> str | None:
    """The text at an address; None where there is nothing."""
    import httpx

    try:
        answer = client.get(url, headers={"Accept": accept})
        if answer.status_code == 404:
            return None
        answer.raise_for_status()
    except httpx.HTTPError as error:
        raise ServiceError(f"{redact(url)} did not answer: {redact(str(error))[:200]}", "Look at the network") from None
    return str(answer.text)


def keep(workspace: Workspace, model: str, subject: str, now: Mapping[str, Any], *, at: datetime) -> dict[str, Any]:
    """Keep this version if it is another than the newest; what it is to be compared with.

    That is the version that stood when the champion came: a change stands until a model has learned from it. Before
    there was one, the first.
    """
    store = workspace.store
    rows = store.frame(model, "watched")
    rows = rows[(rows["subject"] == subject) & (rows["at"] <= pd.Timestamp(at))].sort_values("at")
    body = json.dumps(now, sort_keys=True)
    digest = hashlib.sha256(body.encode()).hexdigest()
    if not len(rows) or rows["digest"].iloc[-1] != digest:
        row = {"at": pd.Timestamp(at), "subject": subject, "digest": digest, "body": body}
        store.append(model, "watched", pd.DataFrame([row]), key=f"watched:{subject}:{at.isoformat()}")
    if not len(rows):
        return dict(now)
    reign = workspace.registry.reign(model, as_of=at)
    stood = rows[rows["at"] <= pd.Timestamp(reign.at)] if reign else rows.iloc[:0]
    kept: dict[str, Any] = json.loads(stood["body"].iloc[-1] if len(stood) else rows["body"].iloc[0])
    return kept


def _json(text: str, source: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise DataError(f"{source} is no JSON: {error}", "Get it again") from error
