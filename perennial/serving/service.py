"""What the API does, without HTTP: score requests by the right version, and remember them. `about` tells of it."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from perennial.errors import PerennialError
from perennial.model.scores import is_many
from perennial.serving.about import About, no_table_facts
from perennial.serving.checked import Checked
from perennial.serving.log import reviews
from perennial.serving.log.entries import entry_of
from perennial.serving.log.labels import LabelDesk
from perennial.serving.log.sealer import Sealer
from perennial.serving.log.shipper import SHADOW, Shipper
from perennial.serving.log.spool import Spool
from perennial.serving.log.waiting import Label
from perennial.serving.metrics import Metrics
from perennial.serving.protocol.codec import Request
from perennial.serving.protocol.columns import Columns, Rows, Unseen, pick
from perennial.serving.protocol.problems import Problem
from perennial.serving.scoring.batching import Batcher, Coalescer
from perennial.serving.scoring.groups import Ids, in_share, left_alone
from perennial.serving.scoring.scorer import Floats
from perennial.serving.settings import ServingSettings
from perennial.serving.versions.host import Host, Served
from perennial.serving.versions.model import LoadedModel
from perennial.workspace import Workspace

LOG = logging.getLogger("perennial.serving")
_SHADOW_QUEUE = 1000
_TABLES_SECONDS, _TABLES_REST_SECONDS, _TABLES_THREADS = 5.0, 10.0, 4
T = TypeVar("T")
Bounds = tuple[list[float], list[float]]
Answers = list[Any]  # a number for each row, or of many classes a list of one for each


def _told(scores: Floats, answers: Answers) -> Answers:
    """What metrics count of answers: of many classes the likeliest one's probability."""
    return scores.max(axis=1).tolist() if is_many(scores) else answers


def _bounds(
    champion: LoadedModel, candidate: LoadedModel | None, scores: Answers, versions: list[int] | None
) -> Bounds | None:
    """The ends of each answer's interval, by the version that gave it; None where no version has any."""
    models = [champion] if versions is None or candidate is None else [champion, candidate]
    if all(model.intervals is None for model in models):
        return None
    values = np.array(scores, dtype=np.float64)
    lower, upper = np.full(len(values), np.nan), np.full(len(values), np.nan)
    for model in models:
        if (intervals := model.intervals) is not None:
            own = slice(None) if versions is None else np.array(versions) == model.version
            lower[own], upper[own] = intervals.bounds(values[own])
    return lower.tolist(), upper.tolist()


def _no_interval(champion: LoadedModel) -> dict[str, Any]:
    coverage = champion.definition.serving.interval
    return {
        "problem": "no interval",
        "told": f"version {champion.version} was made without intervals of {coverage:g}: a training or a recalibration "
        "makes them",
    }


@dataclass(frozen=True)
class Scored:
    """The answer to a request, row for row.

    Attributes:
        scores: Numbers, or of many classes lists of one for each.
        versions: The version that scored each row; all the champion's without a canary.
        control: Whether each row is in the control group; None where the model has none.
        bounds: Lower and upper ends of a regression's intervals; None where the model has none.
    """

    ids: list[str]
    scores: Answers
    version: int
    versions: list[int] | None
    control: list[bool] | None
    bounds: Bounds | None = None


class Service:
    """Everything behind the routes, for one process.

    Args:
        workspace: Definitions, tables, registry address.
        settings: Limits and intervals.
        metrics_folder: Of all workers of one server; None for this process alone.
        ships: Whether this process ships its log and labels itself, instead of leaving it to `shipping`.
    """

    def __init__(
        self, workspace: Workspace, settings: ServingSettings, metrics_folder: Path | None = None, *,
        ships: bool = True,
    ) -> None:  # fmt: skip
        self.workspace, self.settings = workspace, settings
        self.metrics = Metrics(metrics_folder)
        self.host = Host(
            workspace, settings.poll_seconds, self._swapped, follow_seconds=settings.follow_seconds,
            registry_seconds=settings.registry_seconds, baked=settings.baked,
        )  # fmt: skip
        self.batcher = Batcher()
        self._tables = ThreadPoolExecutor(_TABLES_THREADS, thread_name_prefix="perennial-tables")
        self._tables_rest_until = 0.0
        self.coalescer = Coalescer()
        home = workspace.home
        self.spool = Spool(home / "serving" / "spool", settings.most_spool_bytes)
        self._label_spool = Spool(home / "serving" / "labels", settings.most_spool_bytes)
        self.labels = LabelDesk(
            self._label_spool, self.spool, workspace.store, home / "locks", settings.unknown_label_hours,
            on_expired=lambda model, count: self.metrics.shipping.expired_labels.labels(model).inc(count),
        )  # fmt: skip
        self.shipper = self._shipper() if ships else self._sealer()
        self.about = About(self)
        self.checked = Checked(workspace, lambda: self.host.served)
        self.ids = Ids()
        self._shed_counted = 0
        self._shadow: queue.Queue[tuple[LoadedModel, Rows, list[str], list[int | None] | None, int] | None]
        self._shadow = queue.Queue(_SHADOW_QUEUE)
        self._shadow_thread = threading.Thread(target=self._shadow_work, name="perennial-shadow", daemon=True)
        self.draining = False
        self.in_work = 0
        self.started_at = time.time()

    def _shipper(self) -> Shipper:
        settings = self.settings
        return Shipper(
            self.spool, self.workspace.store, self.workspace.home / "locks", ship_seconds=settings.ship_seconds,
            ship_rows=settings.ship_rows, compact_commits=settings.compact_commits, tick=self._tick,
            on_shipped=lambda model, rows: self.metrics.shipping.shipped.labels(model).inc(rows),
            on_repeated=self.metrics.shipping.repeat,
            also=self.labels.ship,
        )  # fmt: skip

    def _sealer(self) -> Sealer:
        return Sealer(
            (self.spool, self._label_spool), self.workspace.home / "serving" / "shipper.json",
            ship_seconds=self.settings.ship_seconds, ship_rows=self.settings.ship_rows, tick=self._tick,
        )  # fmt: skip

    def start(self) -> None:
        """Load the champions; log, labels and watching go on in threads."""
        self.host.start()
        self.shipper.start()
        self._shadow_thread.start()

    def stop(self) -> None:
        """End the threads and ship what there is."""
        self.host.stop()
        self._shadow.put(None)
        self._shadow_thread.join(timeout=5)
        self.batcher.close()
        self._tables.shutdown(wait=False, cancel_futures=True)
        self.shipper.stop()
        self.spool.close()
        self._label_spool.close()

    def served(self, model: str | None) -> Served:
        """What answers for a model; for the only one where none is named.

        Raises:
            Problem: 404 where there is none, 400 where it must be named.
        """
        served = self.host.served
        if model is None:
            if len(served) == 1:
                return next(iter(served.values()))
            if not served and (waiting := self.host.waiting()):
                return self.served(waiting[0])  # says why not
            known = ", ".join(f"/models/{name}/invocations" for name in served) or "none yet"
            raise Problem(
                404 if not served else 400, f"name the model; served are: {known}", rule="/models/NAME/invocations"
            )
        if model not in served:
            if (reason := self.host.why_not(model)) is not None:
                raise Problem(503, f"{model} can't be served now: {reason}", {"retry-after": "5"}, rule="see /health")
            raise Problem(404, f"no model {model[:80]!r} is served", rule=", ".join(served) or "none yet")
        return served[model]

    def clean(self, served: Served, request: Request) -> None:
        """Bring the rows into the clean form; count what is missing and what training never saw; warn of the latter.

        Raises:
            Problem: 422 with the first cell that breaks its rule.
        """
        unseen: Unseen = {}
        missing: dict[str, int] = {}
        served.champion.schema.clean(request.rows, unseen, missing)
        counts: dict[str, int] = {}
        if unseen:
            for (column, _), rows in unseen.items():
                counts[column] = counts.get(column, 0) + rows
            hidden = served.champion.definition.serving.redact
            request.warnings = served.champion.schema.warnings(unseen, hidden)
        self.metrics.counted(served.champion.name, counts, missing)

    async def score(self, served: Served, request: Request, arrived_ns: int) -> Scored:
        """Score clean rows, write them down, and hand them to the shadow.

        Raises:
            Problem: 422 where the model refuses a row.
        """
        champion = served.champion
        serving, name = champion.definition.serving, champion.name
        rows = request.rows
        ids = request.ids or self.ids.take(len(rows))
        salt = serving.salt or name
        candidate = served.candidate
        raw, scores, versions = await self._scores(champion, candidate, rows, ids, salt)
        control = left_alone(ids, serving, name)
        bounds = None if serving.interval is None else _bounds(champion, candidate, scores, versions)
        if serving.interval is not None and bounds is None:
            request.warnings = [*request.warnings, _no_interval(champion)]
        self._remember(champion, request, rows, ids, (raw, scores), versions, control, arrived_ns, bounds)
        if candidate is not None and serving.shadow:
            self._cast_shadow(candidate, request, rows, ids, versions, salt)
        return Scored(ids, scores, champion.version, versions, control, bounds)

    async def _scores(
        self, champion: LoadedModel, candidate: LoadedModel | None, rows: Rows, ids: list[str], salt: str
    ) -> tuple[Answers, Answers, list[int] | None]:
        """Raw scores, scores, and each row's version where a canary took some."""
        share = champion.definition.serving.canary
        chosen = [] if candidate is None else [in_share(item, share, salt, "canary") for item in ids]
        if candidate is None or not any(chosen):
            return *(await self._by(champion, rows, "champion")), None
        made: dict[bool, Iterator[tuple[Any, Any]]] = {}
        for canary, model in ((False, champion), (True, candidate)):
            indices = [index for index, picked in enumerate(chosen) if picked == canary]
            if indices:
                part = pick(rows, indices)
                raw, scores = await self._by(model, part, "canary" if canary else "champion")
                made[canary] = zip(raw, scores, strict=True)
        pairs = [next(made[picked]) for picked in chosen]
        versions = [candidate.version if picked else champion.version for picked in chosen]
        return [raw for raw, _ in pairs], [score for _, score in pairs], versions

    async def _by(self, model: LoadedModel, rows: Rows, role: str) -> tuple[Answers, Answers]:
        """Raw scores and scores: one list where there is no map between them."""
        scorer = model.scorer
        if len(rows) <= scorer.inline_rows and isinstance(rows, Columns):
            raw = scorer.raw(rows)
        elif len(rows) <= scorer.inline_rows:
            raw = await self.coalescer.score(model.digest, scorer.raw, rows)
        elif len(rows) <= scorer.fast_rows:
            raw = await self.batcher.run(partial(scorer.raw, rows))
        else:
            raw = await self.batcher.score(model.digest, scorer.raw_slow, rows)
        mapped = scorer.mapped(raw)
        scores: Answers = mapped.tolist()
        self.metrics.scored(model.name, model.version, role, _told(mapped, scores), model.score_bins)
        return raw.tolist() if scorer.recalibrated else scores, scores

    async def take_labels(self, model: str, labels: Sequence[Label]) -> dict[str, Any]:
        """Keep labels at once, and say which ids nobody knows so far.

        Raises:
            Problem: 503 where they can't be written down.
        """
        await asyncio.to_thread(self.labels.keep, model, labels)
        return self.labels.receipt(model, labels, await self._ask_tables(self.labels.look_up, model, labels))

    async def ask_reviews(self, served: Served, query: reviews.Query) -> dict[str, Any]:
        """What a person is asked next.

        Raises:
            Problem: 404 where the model has no reviews, 503 where the tables don't answer.
        """
        champion = served.champion
        reviews.require_reviews(champion.definition)
        store = self.workspace.store
        found = await self._of_tables(reviews.ask, store, champion.definition, champion.classes, query)
        return found

    async def take_reviews(self, served: Served, raw: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Write a person's answers into the tables, and hand the labels that follow to the way of all labels.

        Raises:
            Problem: 404 or 422 with what is refused, 503 where the tables don't answer: then ask again, twice is once.
        """
        champion = served.champion
        reviews.require_reviews(champion.definition)
        store = self.workspace.store
        found = await self._of_tables(reviews.take, store, champion.definition, champion.classes, raw)
        if isinstance(found, Problem):
            raise found
        told, labels = found
        if labels:
            await asyncio.to_thread(self.labels.keep, champion.name, labels)
        return told

    async def _of_tables(self, ask: Callable[..., T], *arguments: Any) -> T:
        try:
            found = await self._ask_tables(ask, *arguments)
        except PerennialError as error:
            raise reviews.away(error) from error
        if found is None:
            raise reviews.away(None)
        return found

    async def describe(self, model: str) -> dict[str, Any]:
        """All that is known of a model; without the tables' part where they don't answer."""
        facts = await self._ask_tables(self.about.table_facts, model)
        facts = facts or no_table_facts(f"no answer within {_TABLES_SECONDS:g} s")
        return await asyncio.to_thread(self.about.describe, model, facts)

    async def _ask_tables(self, ask: Callable[..., T], *arguments: Any) -> T | None:
        """What the tables tell; None where they take too long. In threads of their own: they may hang for minutes."""
        if time.monotonic() < self._tables_rest_until:
            return None
        asked = asyncio.get_running_loop().run_in_executor(self._tables, ask, *arguments)
        try:
            return await asyncio.wait_for(asked, _TABLES_SECONDS)
        except TimeoutError:
            self._tables_rest_until = time.monotonic() + _TABLES_REST_SECONDS
            return None

    def _remember(
        self, champion: LoadedModel, request: Request, rows: Rows, ids: list[str],
        scores: tuple[Answers, Answers], versions: list[int] | None, control: list[bool] | None,
        arrived_ns: int, bounds: Bounds | None,
    ) -> None:  # fmt: skip
        serving = champion.definition.serving
        latency_us = (time.perf_counter_ns() - arrived_ns) // 1000
        salt = serving.salt or champion.name
        groups = None if control is None else ["control" if item else "treated" for item in control]
        wanted = range(len(ids))
        if serving.log_share < 1.0:
            wanted = [i for i in wanted if in_share(ids[i], serving.log_share, salt, "log")]  # type: ignore[assignment]
        parts: dict[int, Sequence[int]] = {champion.version: wanted} if wanted and versions is None else {}
        for number in sorted(set(versions or ())):
            if mine := [index for index in wanted if versions is not None and versions[index] == number]:
                parts[number] = mine
        for version, chosen in parts.items():
            role = "champion" if version == champion.version else "canary"
            entry = entry_of(champion, role, version, latency_us, request, rows, ids, scores, groups, chosen, bounds)
            self.spool.append(champion.name, entry, len(chosen))

    def _cast_shadow(
        self, candidate: LoadedModel, request: Request, rows: Rows, ids: list[str],
        versions: list[int] | None, salt: str,
    ) -> None:  # fmt: skip
        share = candidate.definition.serving.shadow
        chosen = [
            index for index, item in enumerate(ids)
            if (versions is None or versions[index] != candidate.version) and in_share(item, share, salt, "shadow")
        ]  # fmt: skip
        if not chosen:
            return
        times = None if request.times is None else [request.times[index] for index in chosen]
        picked = pick(rows, chosen)
        try:
            self._shadow.put_nowait(
                (candidate, picked, [ids[index] for index in chosen], times, time.time_ns() // 1000)
            )
        except queue.Full:
            self.metrics.shadow_dropped.labels(candidate.name).inc(len(chosen))

    def _shadow_work(self) -> None:
        while (item := self._shadow.get()) is not None:
            candidate, rows, ids, times, at_us = item
            started = time.perf_counter_ns()
            try:
                found = candidate.scorer.raw(rows)
                mapped = candidate.scorer.mapped(found)
                raw, scores = found.tolist(), mapped.tolist()
            except Problem as problem:  # the champion answered; that the candidate can't is worth knowing
                LOG.warning("shadow refused", extra={"facts": {"model": candidate.name, "reason": problem.message}})
                continue
            latency_us = (time.perf_counter_ns() - started) // 1000
            request = Request(rows, ids, times)
            every = range(len(ids))
            entry = entry_of(
                candidate, SHADOW, candidate.version, latency_us, request, rows, ids, (raw, scores), None, every
            )
            entry.at_us = at_us
            self.spool.append(candidate.name, entry, len(ids))
            told = _told(mapped, scores)
            self.metrics.scored(candidate.name, candidate.version, SHADOW, told, candidate.score_bins)

    def _swapped(self, model: str, version: int, result: str) -> None:
        self.metrics.swaps.labels(model, result).inc()
        if result != "refused":
            self.metrics.version.labels(model).set(version)

    def _tick(self) -> None:
        self.spool.recheck()
        self._label_spool.recheck()
        self.refresh_gauges()

    def refresh_gauges(self) -> None:
        """Bring the gauges to what is true now."""
        self.metrics.spool_bytes.set(self.spool.used_bytes)
        self.metrics.in_work.set(self.in_work)
        self.metrics.queue.set(self.batcher.queued_rows)
        self.metrics.registry_up.set(1 if self.host.registry_up else 0)
        self.metrics.log_failing.set(1 if self.log_problems() else 0)
        if (shed := self.spool.shed_rows) > self._shed_counted:
            self.metrics.shed.inc(shed - self._shed_counted)
            self._shed_counted = shed

    def log_problems(self) -> list[str]:
        """What is wrong at present with the prediction log or the labels."""
        shipping = self.shipper.failing or self.labels.failing
        found = [("prediction log", self.spool.failing), ("labels", self._label_spool.failing), ("shipping", shipping)]
        return [f"{what}: {problem}" for what, problem in found if problem]
