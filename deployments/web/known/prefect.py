"""What a Prefect server knows of our runs, by its HTTP interface; and starting one. Prefect itself is not imported."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx

from perennial.errors import ServiceError
from perennial.operate.identity import running_prefect
from perennial.settings import Settings

_PAGE, _RECENT = 200, 200
_OURS = {"deployments": {"tags": {"all_": ["perennial"]}}}
_AT_WORK = ("PENDING", "RUNNING", "CANCELLING")
START_IT = "Start it: `perennial up`"


@dataclass(frozen=True)
class Run:
    """A flow run as people are told of it; times as Prefect writes them."""

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
        """Whether it is at work, or due to be."""
        return self.state_type in ("SCHEDULED", *_AT_WORK)


class PrefectServer:
    """The server of this home, or the one that the settings name.

    Every method raises ServiceError where it does not answer, or not as Prefect does.
    """

    def __init__(self, settings: Settings, http: httpx.Client) -> None:
        self._settings, self._http = settings, http
        self._url: str | None = None
        self._deployments: dict[str, tuple[str, str]] = {}

    @property
    def ui(self) -> str:
        """Where people look at its runs."""
        return self._settings.prefect_url.rstrip("/").removesuffix("/api")

    def look(self, models: Sequence[str], now: datetime) -> tuple[dict[str, list[Run]], set[tuple[str, str]]]:
        """The newest runs of each model, those first that are due or at work; and (flow, model) of paused schedules."""
        self._url = self._settings.prefect_api_url or running_prefect(self._settings)
        paused = self._look_at_deployments()
        due = {"state": {"type": {"any_": ["SCHEDULED"]}}, "expected_start_time": {"before_": now.isoformat()}}
        at_work = {"state": {"type": {"any_": list(_AT_WORK)}}}
        ended = {"state": {"type": {"not_any_": ["SCHEDULED", *_AT_WORK]}}}
        runs: dict[str, list[Run]] = {name: [] for name in models}
        first = "EXPECTED_START_TIME_DESC"
        for asked, order in ((due, first), (at_work, first), (ended, "END_TIME_DESC")):
            body = _OURS | {"flow_runs": asked, "sort": order, "limit": _RECENT}
            for run in map(self._told, self._ask("POST", "/flow_runs/filter", body)):
                if run.model in runs:
                    runs[run.model].append(run)
        return runs, paused

    def start(self, flow: str, model: str, parameters: dict[str, Any], *, tags: Sequence[str]) -> str:
        """Start a run of a deployment; its id."""
        found = self._ask("GET", f"/deployments/name/{flow}/{model}")
        if found is None:
            raise ServiceError(f"{flow}/{model} is not deployed", "Run `perennial deploy`")
        body = {"parameters": parameters, "tags": ["perennial", model, *tags], "state": {"type": "SCHEDULED"}}
        return str(self._ask("POST", f"/deployments/{found['id']}/create_flow_run", body)["id"])

    def _look_at_deployments(self) -> set[tuple[str, str]]:
        found: list[dict[str, Any]] = []
        while page := self._ask("POST", "/deployments/filter", _OURS | {"limit": _PAGE, "offset": len(found)}):
            found += page
        flows = {item["id"]: item["name"] for item in self._ask("POST", "/flows/filter", {"limit": _PAGE})}
        self._deployments = {item["id"]: (flows.get(item["flow_id"], ""), item["name"]) for item in found}
        return {
            self._deployments[item["id"]]
            for item in found
            if item.get("paused") or any(not each.get("active", True) for each in item.get("schedules") or [])
        }

    def _told(self, item: dict[str, Any]) -> Run:
        flow, model = self._deployments.get(item.get("deployment_id") or "", ("", ""))
        state = item.get("state") or {}
        return Run(
            item["id"], item["name"], flow, model or str((item.get("parameters") or {}).get("model", "")),
            state.get("name") or "", state.get("type") or "", item.get("start_time"),
            item.get("expected_start_time"), tuple(item.get("tags") or ()), (state.get("message") or "")[:300],
        )  # fmt: skip

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """The answer; None where there is no such thing."""
        url = self._url or self._settings.prefect_api_url or running_prefect(self._settings)
        if url is None:
            raise ServiceError("no Prefect server of this home is running", START_IT)
        name, _, password = os.environ.get("PREFECT_API_AUTH_STRING", "").partition(":")
        auth = httpx.BasicAuth(name, password) if name else None
        try:
            answer = self._http.request(method, f"{url.rstrip('/')}{path}", json=body, auth=auth)
            if answer.status_code == 404 and method == "GET":
                return None
            answer.raise_for_status()
            return answer.json()
        except (httpx.HTTPError, OSError, ValueError) as error:
            raise ServiceError(f"Prefect does not answer ({type(error).__name__})", START_IT) from None
