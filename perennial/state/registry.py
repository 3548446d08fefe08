"""The model registry: versions, who is champion, and since when. It lets nobody in: the gate decides that.

MLflow holds runs, versions and aliases. Its alias is a plain write in which the last of two promoters wins
silently, so the truth of who is champion is the table `history`, appended by compare-and-set; the aliases and
the manifest that the API watches follow it, and are mended by whoever looks next if a promoter died between.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pandas as pd

from perennial.errors import ConflictError, NotFoundError, RegistryError
from perennial.model.artifacts import folder_digest
from perennial.state.live import publish_manifest, write_manifest
from perennial.state.patience import Patient, ask, is_away
from perennial.state.store import Store

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
TRAINING_KEY_TAG = "perennial.training_key"
_DIGEST_TAG = "perennial.digest"


@dataclass(frozen=True)
class Version:
    """One registered version of a model."""

    model: str
    number: int
    run_id: str
    source: str
    tags: Mapping[str, str]
    created_at: datetime

    @property
    def digest(self) -> str:
        return self.tags.get(_DIGEST_TAG, "")

    def tag(self, name: str, default: str = "") -> str:
        return self.tags.get(f"perennial.{name}", default)


@dataclass(frozen=True)
class Reign:
    """One line of the history: a version became champion at a moment, for a reason."""

    sequence: int
    version: int
    previous: int | None
    action: str
    at: datetime
    recorded_at: datetime
    by: str
    reason: str
    decision_id: str | None


class Registry:
    """MLflow's registry and the history of champions beside it.

    Args:
        tracking_uri: A database or server address, as MLflow takes it.
        artifacts_root: Where new experiments keep their artifacts: a folder or an object-store URL; None where
            MLflow's server decides it.
        store: The tables, for the history.
        live_folder: Where the manifests are that the serving API watches.
        publish: Whether manifests go into the tables too, for APIs on other machines.
        patience_seconds: How long a registry that is away is asked again; 0 tells at once.
        on_promotion: Called after each change of champion, with the version; it must not raise.
    """

    def __init__(
        self, tracking_uri: str, artifacts_root: str | None, store: Store, live_folder: Path, *,
        publish: bool = False, patience_seconds: float = 0.0, on_promotion: Callable[[Version], object] | None = None,
    ) -> None:  # fmt: skip
        self.tracking_uri = tracking_uri
        self._artifacts_root = artifacts_root
        self._store = store
        self._live_folder = live_folder
        self._publish = publish
        self.patience_seconds = patience_seconds
        self._on_promotion = on_promotion
        self._client: Any = None
        self._run_folders: dict[str, str] = {}

    @property
    def client(self) -> Any:
        """MLflow's client; a server that is down fails quickly instead of blocking for minutes."""
        if self._client is None:
            os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
            os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
            if self.tracking_uri.startswith("sqlite:///"):
                Path(self.tracking_uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
            import mlflow

            logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
            mlflow.set_tracking_uri(self.tracking_uri)
            ask(lambda: _probe(self.tracking_uri), self.patience_seconds)
            client = ask(lambda: mlflow.MlflowClient(self.tracking_uri), self.patience_seconds)
            self._client = Patient(client, self.patience_seconds)
        return self._client

    def experiment_id(self, model: str) -> str:
        """The model's experiment, made on first use."""
        from mlflow.exceptions import MlflowException

        found = self.client.get_experiment_by_name(model)
        if found is None:
            location = self._artifacts_root
            if location is not None:
                location = location if "://" in location else Path(location).resolve().as_uri()
                location = f"{location}/{model}"
            try:
                return str(self.client.create_experiment(model, artifact_location=location))
            except MlflowException:
                found = self.client.get_experiment_by_name(model)  # another process made it meanwhile
                if found is None:
                    raise
        return str(found.experiment_id)

    def run_for(self, model: str, training_key: str, *, name: str, tags: Mapping[str, str]) -> str:
        """A new source run of a training that has no version yet; what a killed one left of a run is deleted.

        MLflow refuses another value for a parameter, and would append to tables: nothing half can be gone on with.
        """
        experiment = self.experiment_id(model)
        for half in self.client.search_runs([experiment], f"tags.`{TRAINING_KEY_TAG}` = '{training_key}'"):
            self.client.delete_run(half.info.run_id)
        run = self.client.create_run(experiment, run_name=name, tags={TRAINING_KEY_TAG: training_key, **tags})
        return str(run.info.run_id)

    def register(
        self, model: str, *, training_key: str, run_id: str, source: str, tags: Mapping[str, str],
        digest: str | None = None,
    ) -> Version:  # fmt: skip
        """Make a version of a logged model; a key that is registered already gives that version.

        The digest of the artifacts, which is taken where it is not given, is recorded with it, in the same write.
        """
        from mlflow.exceptions import MlflowException

        version = self.find(model, training_key)
        if version is None:
            try:
                self.client.create_registered_model(model)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            all_tags = {
                TRAINING_KEY_TAG: training_key,
                _DIGEST_TAG: digest or folder_digest(self.fetch(source)),
                **{f"perennial.{name}": value for name, value in tags.items()},
            }
            version = _version(
                self.client.create_model_version(
                    model, source, run_id, tags=all_tags, description=tags.get("gate.reason"),
                    model_id=_logged_model(source),  # a remote server refuses the source without it
                )
            )  # fmt: skip
        self._name_challenger(version)
        self.settle(model)  # the manifest names the challenger too
        return version

    def describe(self, model: str, text: str) -> None:
        """Let MLflow's page of the model say what it is for, unless somebody has written something there."""
        found = self.client.get_registered_model(model)
        if text and not found.description:
            self.client.update_registered_model(model, text)

    def _name_challenger(self, version: Version) -> None:
        """Let the alias follow; who registered it may have died, or lost the answer, before it did.

        A version that has reigned is no challenger any more.
        """
        named = self.client.get_registered_model(version.model).aliases.get(CHALLENGER)
        reigned = {line.version for line in self.history(version.model)}
        if version.number not in reigned and (named is None or int(named) < version.number):
            self.client.set_registered_model_alias(version.model, CHALLENGER, version.number)

    def find(self, model: str, training_key: str) -> Version | None:
        """The version with this training key, if it was registered."""
        found = self.client.search_model_versions(f"name = '{model}' and tags.`{TRAINING_KEY_TAG}` = '{training_key}'")
        return _version(min(found, key=lambda item: int(item.version))) if found else None

    def version(self, model: str, number: int) -> Version:
        from mlflow.exceptions import MlflowException

        try:
            return _version(self.client.get_model_version(model, str(number)))
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                raise NotFoundError(f"{model} has no version {number}", f"See `perennial status {model}`") from error
            raise RegistryError(f"the registry did not answer: {error.message}", "Start it: `perennial up`") from error

    def versions(self, model: str) -> list[Version]:
        """All versions, oldest first."""
        found = self.client.search_model_versions(f"name = '{model}'", max_results=1000)
        return sorted((_version(item) for item in found), key=lambda item: item.number)

    def aliases(self, model: str) -> dict[str, int]:
        """The version of each alias, ours and those that people gave; of a model that has versions."""
        found = self.client.get_registered_model(model).aliases
        return {alias: int(number) for alias, number in found.items()}

    def set_tags(self, version: Version, tags: Mapping[str, str]) -> None:
        for name, value in tags.items():
            self.client.set_model_version_tag(version.model, str(version.number), f"perennial.{name}", value)

    def history(self, model: str) -> list[Reign]:
        """Every change of champion, oldest first."""
        frame = self._store.frame(model, "history").sort_values("sequence")
        return [_reign(row) for row in frame.to_dict("records")]

    def reign(self, model: str, *, as_of: datetime | None = None) -> Reign | None:
        """The line that made the champion of a moment; of now by default."""
        lines = [line for line in self.history(model) if as_of is None or line.at <= as_of]
        return lines[-1] if lines else None

    def champion(self, model: str, *, as_of: datetime | None = None) -> Version | None:
        """The champion at a moment, now by default; None where the model has none yet."""
        reign = self.reign(model, as_of=as_of)
        return self.version(model, reign.version) if reign else None

    def promote(
        self, version: Version, *, action: str, at: datetime, recorded_at: datetime, by: str, reason: str,
        decision_id: str | None = None,
    ) -> Reign:  # fmt: skip
        """Make a version the champion; once it is, doing it again changes nothing.

        Raises:
            ConflictError: Somebody else changed the champion at the same moment.
        """
        current = self.reign(version.model)
        if current is None or current.version != version.number:
            current = Reign(
                (current.sequence if current else 0) + 1, version.number, current.version if current else None,
                action, at, recorded_at, by, reason, decision_id,
            )  # fmt: skip
            row = pd.DataFrame([current.__dict__]).astype({"previous": "Int64"})
            key = {"key": "champion", "sequence": current.sequence}
            if not self._store.append(version.model, "history", row, **key).written:  # type: ignore[arg-type]
                raise ConflictError(
                    f"another promotion of {version.model} was quicker", f"See `perennial history {version.model}`"
                )
        self.settle(version.model)
        if self._on_promotion is not None:
            self._on_promotion(version)
        return current

    def rollback(
        self, model: str, *, to: int | None, at: datetime, recorded_at: datetime, by: str, reason: str
    ) -> Reign:
        """Make an earlier champion the champion again: `to`, or the one before the present one.

        Raises:
            NotFoundError: There is no champion, or none before it, or that version never was one.
            ConflictError: That version is the champion already.
        """
        lines = self.history(model)
        if not lines:
            raise NotFoundError(f"{model} never had a champion", f"Train one: `perennial retrain {model}`")
        current = lines[-1].version
        if to is None:
            to = _before(lines)
            if to is None:
                raise NotFoundError(f"{model} had no champion before version {current}", "Name one with --to VERSION")
        champions = sorted({line.version for line in lines})
        if to not in champions:
            raise NotFoundError(
                f"version {to} of {model} was never champion", f"Champions were {', '.join(map(str, champions))}"
            )
        if to == current:
            raise ConflictError(f"version {to} of {model} is the champion already", "Name another with --to VERSION")
        return self.promote(
            self.version(model, to), action="rollback", at=at, recorded_at=recorded_at, by=by, reason=reason
        )

    def settle(self, model: str) -> None:
        """Bring aliases and manifest to what the history says, and look again: another promoter may be at it too."""
        settled: list[Reign] = []
        while (lines := self.history(model)) != settled:
            self._follow(model, lines)
            settled = lines

    def _follow(self, model: str, lines: list[Reign]) -> None:
        current = self.version(model, lines[-1].version)
        aliases = {CHAMPION: current.number}
        if (previous := _before(lines)) is not None:
            aliases[PREVIOUS] = previous
        registered = self.client.get_registered_model(model).aliases
        for alias, number in aliases.items():
            if str(registered.get(alias)) != str(number):
                self.client.set_registered_model_alias(model, alias, str(number))
        if previous is None and PREVIOUS in registered:  # of before a rollback: no champion stands before this one
            self.client.delete_registered_model_alias(model, PREVIOUS)
        if str(registered.get(CHALLENGER)) == str(current.number):
            self.client.delete_registered_model_alias(model, CHALLENGER)
        self._write_manifest(current, lines[-1])

    def artifacts(self, version: Version) -> Path:
        """The local folder with the version's model files."""
        return self.fetch(version.source)

    def run_artifact(self, version: Version, name: str) -> Path:
        """A file logged on the version's source run, as `run_file`."""
        return self.run_file(version.run_id, name)

    def run_file(self, run_id: str, name: str) -> Path:
        """A file logged on a run: itself where it lies on this machine, else a local copy.

        Raises:
            RegistryError: The run has no such file, or the storage did not answer.
        """
        # Not as runs:/…, of which MLflow makes a copy for each reader, in a folder that nobody removes.
        return self.fetch(f"{self._run_folder(run_id)}/{name}")

    def fetch(self, uri: str) -> Path:
        """A local copy of what an artifact's address names; the thing itself where it lies on this machine.

        Raises:
            RegistryError: It is not there, or the storage did not answer.
        """
        import mlflow
        from mlflow.exceptions import MlflowException

        mlflow.set_tracking_uri(self.tracking_uri)  # models:/ addresses are looked up there, whatever is passed
        target = None if self._is_local(uri) else tempfile.mkdtemp(dir=_downloads())
        try:
            return Path(
                ask(
                    lambda: mlflow.artifacts.download_artifacts(uri, tracking_uri=self.tracking_uri, dst_path=target),
                    self.patience_seconds,
                )
            )
        except (MlflowException, OSError) as error:
            raise RegistryError(f"the artifact {uri} can't be read: {error}", "Check the artifact storage") from error

    def _run_folder(self, run_id: str) -> str:
        """The address of a run's artifacts, which stays as it is.

        Raises:
            RegistryError: There is no such run, or the registry did not answer.
        """
        from mlflow.exceptions import MlflowException

        if run_id not in self._run_folders:
            try:
                self._run_folders[run_id] = str(self.client.get_run(run_id).info.artifact_uri)
            except MlflowException as error:
                raise RegistryError(f"the run {run_id} can't be read: {error}", "Check the registry") from error
        return self._run_folders[run_id]

    def _is_local(self, uri: str) -> bool:
        """Whether an artifact is read where it lies, or downloaded."""
        root = self._artifacts_root
        folder = root is not None and "://" not in root
        return folder and not self.tracking_uri.startswith("http") and urlsplit(uri).scheme in ("", "file", "models")

    def _write_manifest(self, version: Version, reign: Reign) -> None:
        manifest: dict[str, Any] = {
            **self._whereabouts(version), "sequence": reign.sequence, "at": reign.at.isoformat(),
            "reason": reign.reason, "action": reign.action, "by": reign.by,
        }  # fmt: skip
        # The versions that the API may score in the shadow of the champion.
        registered = self.client.get_registered_model(version.model).aliases
        for role in (PREVIOUS, CHALLENGER):
            number = registered.get(role)
            if number is not None and int(number) != version.number:
                manifest[role] = self._whereabouts(self.version(version.model, int(number)))
        text = json.dumps(manifest, indent=2, sort_keys=True)
        if self._publish:
            publish_manifest(self._store, version.model, text, reign.sequence)
        write_manifest(self._live_folder, version.model, text)

    def _whereabouts(self, version: Version) -> dict[str, Any]:
        """What the API needs to fetch and check a version, with the storage's own addresses: no registry is asked."""
        source = version.source
        if (model_id := _logged_model(source)) is not None:
            source = self.client.get_logged_model(model_id).artifact_location
        return {
            "model": version.model, "version": version.number, "digest": version.digest, "source": version.source,
            "run_id": version.run_id, "model_uri": source,
            "run_uri": self._run_folder(version.run_id),
            "definition_hash": version.tag("definition_hash"), "classes": version.tag("classes"),
            "threshold": version.tag("threshold"), "interval": version.tag("interval"),
            "trained_until": version.tag("trained_until"), "gate_verdict": version.tag("gate.verdict"),
        }  # fmt: skip


def _logged_model(source: str) -> str | None:
    """The id of the logged model that a version's source names; None for any other source."""
    return source.removeprefix("models:/") if source.startswith("models:/m-") else None


def _probe(uri: str) -> None:
    """Connect to a database server before MLflow does: it would try for an hour before it says so.

    Raises:
        RegistryError: The server answers, and refuses: the database, user or password is wrong.
    """
    if "://" not in uri or uri.startswith(("sqlite", "http", "file")):
        return
    import sqlalchemy
    from sqlalchemy.pool import NullPool

    try:
        with sqlalchemy.create_engine(uri, poolclass=NullPool).connect():
            return
    except sqlalchemy.exc.SQLAlchemyError as error:
        if is_away(error):
            raise
        reason = " ".join(str(getattr(error, "orig", error)).split())[:200]
        raise RegistryError(f"the registry's database refuses: {reason}", "Correct PERENNIAL_TRACKING_URI") from None


@cache
def _downloads() -> str:
    """Where this process keeps what it downloads, until it ends."""
    folder = tempfile.mkdtemp(prefix="perennial-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _version(item: Any) -> Version:
    return Version(
        model=item.name,
        number=int(item.version),
        run_id=item.run_id,
        source=item.source,
        tags=dict(item.tags),
        created_at=datetime.fromtimestamp(item.creation_timestamp / 1000, UTC),
    )


def _reign(row: Mapping[Any, Any]) -> Reign:
    optional = {name: None if pd.isna(row[name]) else row[name] for name in ("previous", "decision_id")}
    return Reign(
        sequence=int(row["sequence"]),
        version=int(row["version"]),
        previous=None if optional["previous"] is None else int(optional["previous"]),
        action=row["action"],
        at=row["at"].to_pydatetime(),
        recorded_at=row["recorded_at"].to_pydatetime(),
        by=row["by"],
        reason=row["reason"],
        decision_id=optional["decision_id"],
    )


def _before(lines: list[Reign]) -> int | None:
    """The version that a rollback goes to: the last champion still standing before the present one.

    A rollback undoes the promotions after the version it went back to, so that a second one goes further back.
    """
    standing: list[int] = []
    for line in lines:
        if line.action == "rollback" and line.version in standing:
            del standing[len(standing) - standing[::-1].index(line.version) :]
        elif not standing or standing[-1] != line.version:
            standing.append(line.version)
    return standing[-2] if len(standing) > 1 else None
