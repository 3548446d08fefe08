"""What Prefect and MLflow know, by their own HTTP interfaces: runs, versions, artifacts. Neither library is imported.

Either may be away: then it is said since when, and what was known before stays. Their imports would cost a page server
more memory than all of its own work.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import httpx

from perennial.errors import ServiceError
from perennial.operate.servers import running_prefect
from perennial.settings import Settings

_SECONDS = 5.0
_PAGE = 200
_RECENT = 200
ROUND = timedelta(seconds=2)
_ACTIVE = ("PENDING", "RUNNING", "CANCELLING")  # of those that are scheduled only such as are due are asked for


@dataclass(frozen=True)
class Run:
    """A flow run of Prefect's, as people are told of it."""

    id: str
    name: str
    flow: str
    model: str
    state: str
    state_type: str
    start: str | None
    expected: str | None
    tags: tuple[str, ...]
    message: str

    @property
    def active(self) -> bool:
        return self.state_type in ("SCHEDULED", *_ACTIVE)


@dataclass
class Neighbours:
    """Asks Prefect and MLflow, a round each few seconds, and keeps what they said.

    Args:
        clock: The moment of now.
    """

    settings: Settings
    clock: Callable[[], datetime] = field(kw_only=True)
    runs: dict[str, list[Run]] = field(default_factory=dict, init=False)
    waiting: dict[str, list[dict[str, Any]]] = field(default_factory=dict, init=False)
    away: dict[str, tuple[datetime, str]] = field(default_factory=dict, init=False)
    paused: set[tuple[str, str]] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        # Addresses of this installation: a proxy of the environment has no business with them.
        self._http = httpx.Client(timeout=_SECONDS, trust_env=False)
        self._looked: datetime | None = None
        self._url: str | None = None
        self._deployments: dict[str, tuple[str, str]] = {}

    def close(self) -> None:
        self._http.close()

    @property
    def mlflow_url(self) -> str:
        """Where MLflow's server answers: a remote one, or that of `perennial up`."""
        uri = self.settings.tracking_uri or ""
        if uri.startswith(("http://", "https://")):
            return uri.rstrip("/")
        return f"http://{self.settings.host}:{self.settings.mlflow_port}"

    @property
    def prefect_ui(self) -> str:
        """Where people look at Prefect's runs."""
        return (self.settings.prefect_url).rstrip("/").removesuffix("/api")

    def look(self, models: Sequence[str]) -> bool:
        """Ask both, unless that was just done; whether anything is new."""
        now = self.clock()
        if self._looked is not None and now - self._looked < ROUND:
            return False
        self._looked = now
        before = (self.runs, self.waiting, set(self.away), self.paused)
        self._ask("Prefect", lambda: self._look_at_prefect(models))
        self._ask("MLflow", self._look_at_mlflow)
        return before != (self.runs, self.waiting, set(self.away), self.paused)

    def start(self, kind: str, model: str, parameters: dict[str, Any], *, tags: Sequence[str]) -> str:
        """Start a run of a deployment; its id.

        Raises:
            ServiceError: Prefect is away, or has no such deployment.
        """
        try:
            found = self._prefect("GET", f"/deployments/name/{kind}/{model}")
            body = {"parameters": parameters, "tags": ["perennial", model, *tags], "state": {"type": "SCHEDULED"}}
            run: str = self._prefect("POST", f"/deployments/{found['id']}/create_flow_run", body)["id"]
        except httpx.HTTPStatusError as error:
            if error.response.status_code == 404:
                raise ServiceError(f"{kind}/{model} is not deployed", "Run `perennial deploy`") from None
            raise ServiceError(f"Prefect refused: {error.response.text[:300]}", "See its log") from None
        except (httpx.HTTPError, OSError) as error:
            raise ServiceError(
                f"Prefect does not answer ({type(error).__name__})", "Start it: `perennial up`"
            ) from None
        self._looked = None
        return run

    def run(self, run_id: str) -> dict[str, Any] | None:
        """One run as Prefect has it; None where it is away or knows no such run."""
        try:
            found: dict[str, Any] = self._prefect("GET", f"/flow_runs/{run_id}")
        except (httpx.HTTPError, OSError):
            return None
        return found

    def versions(self, model: str) -> list[dict[str, Any]]:
        """The model's registered versions, newest first: version, run_id, created, tags, aliases.

        Raises:
            ServiceError: MLflow is away.
        """
        name = model.replace("'", "")
        found = self._mlflow_pages(f"name = '{name}'")
        aliases = self._mlflow("registered-models/get", {"name": model}, absent={})
        held: dict[str, list[str]] = {}
        for item in aliases.get("registered_model", {}).get("aliases", []):
            held.setdefault(str(item["version"]), []).append(item["alias"])
        shown = [{**_version(item), "aliases": held.get(str(item["version"]), [])} for item in found]
        return sorted(shown, key=lambda item: -item["version"])

    def training_run(self, run_id: str) -> dict[str, Any]:
        """A version's source run: parameters, metrics.

        Raises:
            ServiceError: MLflow is away.
        """
        data = self._mlflow("runs/get", {"run_id": run_id}, absent={}).get("run", {}).get("data", {})
        return {
            "metrics": {item["key"]: float(item["value"]) for item in data.get("metrics", [])},
            "params": {item["key"]: item["value"] for item in data.get("params", [])},
        }

    def curve(self, run_id: str, name: str) -> list[tuple[float, float]]:
        """A curve as it was logged: its horizontal axis is the step in hundredths.

        Raises:
            ServiceError: MLflow is away.
        """
        asked = {"run_id": run_id, "metric_key": f"curve/{name}", "max_results": 1000}
        found = self._mlflow("metrics/get-history", asked, absent={})
        return sorted((int(item.get("step", 0)) / 100, float(item["value"])) for item in found.get("metrics", []))

    def artifact(self, run_id: str, path: str) -> bytes | None:
        """A file of a run; None where the run has none.

        Raises:
            ServiceError: MLflow is away.
        """
        where = f"{self.mlflow_url}/get-artifact"
        asked: httpx.Response | None = self._guarded(lambda: self._get(where, {"path": path, "run_uuid": run_id}))
        return None if asked is None else asked.content

    def _look_at_prefect(self, models: Sequence[str]) -> None:
        self._url = self.settings.prefect_api_url or running_prefect(self.settings)
        if self._url is None:
            raise ServiceError("no Prefect server of this home is running", "Start it: `perennial up`")
        deployments: list[dict[str, Any]] = []
        while page := self._prefect(
            "POST",
            "/deployments/filter",
            {"deployments": {"tags": {"all_": ["perennial"]}}, "limit": _PAGE, "offset": len(deployments)},
        ):
            deployments += page
        flows = self._flow_names()
        self._deployments = {item["id"]: (flows.get(item["flow_id"], ""), item["name"]) for item in deployments}
        self.paused = {
            self._deployments[item["id"]]
            for item in deployments
            if item.get("paused") or any(not each.get("active", True) for each in item.get("schedules") or [])
        }
        ours = {"deployments": {"tags": {"all_": ["perennial"]}}}
        due = {"state": {"type": {"any_": ["SCHEDULED"]}}, "expected_start_time": {"before_": self.clock().isoformat()}}
        at_work, ended = {"any_": list(_ACTIVE)}, {"not_any_": ["SCHEDULED", *_ACTIVE]}
        runs: dict[str, list[Run]] = {name: [] for name in models}
        for asked, order in (
            (due, "EXPECTED_START_TIME_DESC"),
            ({"state": {"type": at_work}}, "EXPECTED_START_TIME_DESC"),
            ({"state": {"type": ended}}, "END_TIME_DESC"),
        ):
            for run in self._runs(ours | {"flow_runs": asked}, order):
                if run.model in runs:
                    runs[run.model].append(run)
        self.runs = runs

    def _runs(self, asked: dict[str, Any], order: str) -> list[Run]:
        found = self._prefect("POST", "/flow_runs/filter", asked | {"sort": order, "limit": _RECENT})
        return [self._told(item) for item in found]

    def _told(self, item: dict[str, Any]) -> Run:
        flow, model = self._deployments.get(item.get("deployment_id") or "", ("", ""))
        state = item.get("state") or {}
        return Run(
            item["id"], item["name"], flow, model or str((item.get("parameters") or {}).get("model", "")),
            state.get("name") or item.get("state_name") or "", state.get("type") or item.get("state_type") or "",
            item.get("start_time"), item.get("expected_start_time"), tuple(item.get("tags") or ()),
            (state.get("message") or "")[:300],
        )  # fmt: skip

    def _flow_names(self) -> dict[str, str]:
        return {item["id"]: item["name"] for item in self._prefect("POST", "/flows/filter", {"limit": _PAGE})}

    def _look_at_mlflow(self) -> None:
        self._require_mlflow()
        waiting: dict[str, list[dict[str, Any]]] = {}
        for item in self._mlflow_pages("tags.`perennial.approval` = 'pending'"):
            waiting.setdefault(item["name"], []).append(_version(item))
        self.waiting = waiting

    def _mlflow_pages(self, wanted: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        asked: dict[str, Any] = {"filter": wanted, "max_results": _PAGE}
        while True:
            page = self._mlflow("model-versions/search", asked, absent={})
            found += page.get("model_versions", [])
            if not page.get("next_page_token"):
                return found
            asked["page_token"] = page["next_page_token"]

    def _require_mlflow(self) -> None:
        """Refuse to ask whoever has the usual port: it may be another home's server.

        Raises:
            ServiceError: No server was named, and this home's own is not up.
        """
        if self.mlflow_url == (self.settings.tracking_uri or "").rstrip("/"):
            return
        try:
            up = json.loads((self.settings.home_path / "up.json").read_text(encoding="utf-8"))
            os.kill(int(up["pid"]), 0)
        except (OSError, ValueError, KeyError):
            raise ServiceError("no MLflow server of this home is running", "Start it: `perennial up`") from None

    def _ask(self, who: str, call: Callable[[], None]) -> None:
        try:
            call()
        except (ServiceError, httpx.HTTPError, OSError) as error:
            told = str(error) if isinstance(error, ServiceError) else f"{who} does not answer ({type(error).__name__})"
            self.away.setdefault(who, (self.clock(), told))
        else:
            self.away.pop(who, None)

    def _prefect(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        url = self._url or self.settings.prefect_api_url or running_prefect(self.settings)
        secret = os.environ.get("PREFECT_API_AUTH_STRING", "")
        name, _, password = secret.partition(":")
        auth = httpx.BasicAuth(name, password) if secret else None
        if url is None:
            raise httpx.ConnectError("no Prefect server of this home is running")
        answer = self._http.request(method, f"{url.rstrip('/')}{path}", json=body, auth=auth)
        answer.raise_for_status()
        return answer.json()

    def _mlflow(self, path: str, asked: dict[str, Any], *, absent: dict[str, Any]) -> dict[str, Any]:
        def call() -> httpx.Response | None:
            return self._get(f"{self.mlflow_url}/api/2.0/mlflow/{path}", asked)

        answer = self._guarded(call)
        found: dict[str, Any] = absent if answer is None else answer.json()
        return found

    def _get(self, url: str, asked: dict[str, Any]) -> httpx.Response | None:
        user = os.environ.get("MLFLOW_TRACKING_USERNAME")
        auth = httpx.BasicAuth(user, os.environ.get("MLFLOW_TRACKING_PASSWORD", "")) if user else None
        token = os.environ.get("MLFLOW_TRACKING_TOKEN")
        headers = {"authorization": f"Bearer {token}"} if token and not user else {}
        answer = self._http.get(url, params=asked, auth=auth, headers=headers)
        if answer.status_code == 404:
            return None
        answer.raise_for_status()
        return answer

    def _guarded(self, call: Callable[[], Any]) -> Any:
        try:
            self._require_mlflow()
            return call()
        except (httpx.HTTPError, OSError) as error:
            raise ServiceError(f"MLflow does not answer ({type(error).__name__})", "Start it: `perennial up`") from None


def _version(item: dict[str, Any]) -> dict[str, Any]:
    tags = {each["key"]: each.get("value", "") for each in item.get("tags", [])}
    return {
        "version": int(item["version"]),
        "run_id": item.get("run_id", ""),
        "created": int(item.get("creation_timestamp", 0)) / 1000,
        "description": item.get("description", ""),
        "tags": {name.removeprefix("perennial."): value for name, value in tags.items()},
    }
