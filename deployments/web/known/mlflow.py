"""What an MLflow server knows of our versions, by its HTTP interface. MLflow itself is not imported.

Its import alone would cost a page's process more memory than all of its own work.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import httpx

from deployments.web.known.prefect import START_IT
from perennial.errors import ServiceError
from perennial.settings import Settings

_PAGE = 200


class MlflowServer:
    """The server that the settings name, or that of this home's `perennial up`.

    Every method raises ServiceError where it does not answer, or not as MLflow does.
    """

    def __init__(self, settings: Settings, http: httpx.Client) -> None:
        self._settings, self._http = settings, http

    @property
    def url(self) -> str:
        """Where it answers, and people look at it."""
        uri = self._settings.tracking_uri or ""
        if uri.startswith(("http://", "https://")):
            return uri.rstrip("/")
        return f"http://{self._settings.host}:{self._settings.mlflow_port}"

    def waiting(self) -> dict[str, list[dict[str, Any]]]:
        """The versions that wait for a person, by model, as `versions` has them."""
        found: dict[str, list[dict[str, Any]]] = {}
        for item in self._search("tags.`perennial.approval` = 'pending'"):
            found.setdefault(item["name"], []).append(_version(item))
        return found

    def versions(self, model: str) -> list[dict[str, Any]]:
        """A model's versions, newest first: version, run_id, created, description, tags, aliases."""
        held: dict[str, list[str]] = {}
        registered = self._ask("registered-models/get", {"name": model}).get("registered_model", {})
        for item in registered.get("aliases", []):
            held.setdefault(str(item["version"]), []).append(item["alias"])
        found = [_version(item) for item in self._search(f"name = '{model}'")]
        shown = [item | {"aliases": held.get(str(item["version"]), [])} for item in found]
        return sorted(shown, key=lambda item: -item["version"])

    def training_run(self, run_id: str) -> dict[str, Any]:
        """A version's source run: metrics and params."""
        data = self._ask("runs/get", {"run_id": run_id}).get("run", {}).get("data", {})
        return {
            "metrics": {item["key"]: float(item["value"]) for item in data.get("metrics", [])},
            "params": {item["key"]: item["value"] for item in data.get("params", [])},
        }

    def curve(self, run_id: str, name: str) -> list[tuple[float, float]]:
        """A curve as it was logged: its horizontal axis is the step in hundredths."""
        asked = {"run_id": run_id, "metric_key": f"curve/{name}", "max_results": 1000}
        found = self._ask("metrics/get-history", asked)
        return sorted((int(item.get("step", 0)) / 100, float(item["value"])) for item in found.get("metrics", []))

    def artifact(self, run_id: str, path: str) -> bytes | None:
        """A file of a run; None where the run has none."""
        answer = self._get("get-artifact", {"path": path, "run_uuid": run_id})
        return None if answer is None else answer.content

    def _search(self, wanted: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        asked: dict[str, Any] = {"filter": wanted, "max_results": _PAGE}
        while True:
            page = self._ask("model-versions/search", asked)
            found += page.get("model_versions", [])
            if not page.get("next_page_token"):
                return found
            asked["page_token"] = page["next_page_token"]

    def _ask(self, path: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        """The answer; empty where there is no such thing."""
        answer = self._get(f"api/2.0/mlflow/{path}", asked)
        try:
            found: dict[str, Any] = {} if answer is None else answer.json()
        except ValueError as error:
            raise _away(error) from None
        return found

    def _get(self, path: str, asked: Mapping[str, Any]) -> httpx.Response | None:
        self._require_ours()
        user, token = os.environ.get("MLFLOW_TRACKING_USERNAME"), os.environ.get("MLFLOW_TRACKING_TOKEN")
        auth = httpx.BasicAuth(user, os.environ.get("MLFLOW_TRACKING_PASSWORD", "")) if user else None
        headers = {"authorization": f"Bearer {token}"} if token and not user else {}
        try:
            answer = self._http.get(f"{self.url}/{path}", params=dict(asked), auth=auth, headers=headers)
            if answer.status_code == 404:
                return None
            answer.raise_for_status()
        except (httpx.HTTPError, OSError) as error:
            raise _away(error) from None
        return answer

    def _require_ours(self) -> None:
        """Refuse to ask whoever has the usual port: it may be another home's server."""
        if self.url == (self._settings.tracking_uri or "").rstrip("/"):
            return
        try:
            up = json.loads((self._settings.home_path / "up.json").read_text(encoding="utf-8"))
            os.kill(int(up["pid"]), 0)
        except (OSError, ValueError, KeyError):
            raise ServiceError("no MLflow server of this home is running", START_IT) from None


def _away(error: Exception) -> ServiceError:
    return ServiceError(f"MLflow does not answer ({type(error).__name__})", START_IT)


def _version(item: Mapping[str, Any]) -> dict[str, Any]:
    tags = {each["key"]: each.get("value", "") for each in item.get("tags", [])}
    return {
        "version": int(item["version"]),
        "run_id": item.get("run_id", ""),
        "created": int(item.get("creation_timestamp", 0)) / 1000,
        "description": item.get("description", ""),
        "tags": {name.removeprefix("perennial."): value for name, value in tags.items()},
    }
