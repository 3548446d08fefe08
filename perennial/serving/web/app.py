"""The routes: from a path to what the service does, with tokens, limits, metrics and request ids around it.

Bare ASGI, since one middleware of a framework costs more than a prediction; FastAPI draws the documentation.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any
from urllib.parse import parse_qs

import numpy as np

from perennial import __version__
from perennial.serving.log.labels import parse_labels
from perennial.serving.log.reviews import parse_answers, parse_query
from perennial.serving.log.waiting import Label
from perennial.serving.protocol import v2
from perennial.serving.protocol.codec import encode_json, parse_request, take_output
from perennial.serving.protocol.media import BINARY, kind_of
from perennial.serving.protocol.problems import Problem
from perennial.serving.service import Scored, Service
from perennial.serving.settings import Tokens
from perennial.serving.versions.host import Served
from perennial.serving.versions.model import LoadedModel
from perennial.serving.web import docs
from perennial.serving.web.http import (
    Answer,
    Disconnected,
    Receive,
    Scope,
    Send,
    header,
    json_answer,
    problem_answer,
    read_body,
    send_answer,
)
from perennial.serving.web.openapi import openapi
from perennial.serving.web.routing import Call, Handler, Route, Router
from perennial.serving.web.tracing import request_span, trace_of

LOG = logging.getLogger("perennial.serving")
_LARGE_BODY = 128 * 1024
_ID = re.compile(r"[\x21-\x7e]{1,128}")
_RETRY = {"retry-after": "1"}


class Api:
    """The ASGI application of one process."""

    def __init__(self, service: Service, tokens: Tokens) -> None:
        self.service = service
        self._tokens = tokens
        self._in_work = 0
        self._prefix = secrets.token_hex(4)
        self._number = 0
        self.routes = self._table()
        self._router = Router(self.routes, lambda name: name in service.host.served)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1000})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        arrived, service = time.perf_counter_ns(), self.service
        request_id = self._request_id(scope)
        traced = trace_of(scope)
        protocol, model = "other", ""
        method: str = scope["method"]
        head = method == "HEAD"
        try:
            route, named, version = self._router.find("GET" if head else method, scope["raw_path"])
            protocol, model = route.protocol, named or ""
            self._authorise(route, scope)
            call = Call(scope, receive, named, version, arrived)
            with request_span(route.protocol, scope) if traced else nullcontext():
                answer = await self._bounded(route, call)
        except Problem as problem:
            answer = problem_answer(problem)
        except Disconnected:
            return
        except asyncio.CancelledError:
            if not service.draining:
                raise
            answer = problem_answer(Problem(503, "the server stops", dict(_RETRY), rule="ask again"))
        except Exception:
            # A bug of ours: said so, logged whole, and counted; its text is not shown to strangers.
            LOG.exception("request failed", extra={"facts": {"request_id": request_id, "path": scope["path"]}})
            answer = problem_answer(Problem(500, f"an error of ours; look for request id {request_id} in the log"))
        known = model if model in service.host.served else ""
        service.metrics.count(known, protocol, answer.status)
        extra = [(b"x-request-id", request_id.encode("latin-1"))]
        if traced:
            extra.append((b"traceparent", traced.encode("latin-1")))
        if service.draining:
            extra.append((b"connection", b"close"))
        await send_answer(send, answer, extra, head=head)
        if answer.status >= 400 or LOG.isEnabledFor(logging.DEBUG):
            self._log(request_id, scope, answer, arrived, traced)

    async def _bounded(self, route: Route, call: Call) -> Answer:
        """The handler within the limits on concurrency and time; health is answered whatever the load."""
        settings = self.service.settings
        if route.scopes is None:
            return await route.handler(call)
        if self._in_work >= settings.most_concurrent:
            raise Problem(429, f"{self._in_work} requests are in work already", dict(_RETRY), rule="try again later")
        self._in_work += 1
        self.service.in_work = self._in_work
        try:
            async with asyncio.timeout(settings.deadline_seconds):
                return await route.handler(call)
        except TimeoutError:
            seconds = settings.deadline_seconds
            raise Problem(503, f"the answer took longer than {seconds:g} s", dict(_RETRY), rule="fewer rows") from None
        finally:
            self._in_work -= 1
            self.service.in_work = self._in_work

    def _authorise(self, route: Route, scope: Scope) -> None:
        if route.scopes is None or not self._tokens.needed:
            return
        kind, _, token = (header(scope, b"authorization") or "").partition(" ")
        scopes = self._tokens.scopes(token.strip()) if kind.lower() == "bearer" and token else frozenset()
        if not scopes:
            raise Problem(
                401, "a valid token is needed", {"www-authenticate": "Bearer"}, rule="Authorization: Bearer TOKEN"
            )
        if not scopes & set(route.scopes):
            raise Problem(403, "the token is not for this", rule=f"a token with the scope {' or '.join(route.scopes)}")

    def _request_id(self, scope: Scope) -> str:
        given = header(scope, b"x-request-id")
        if given is not None and _ID.fullmatch(given):
            return given
        self._number += 1
        return f"{self._prefix}{self._number:x}"

    def _log(self, request_id: str, scope: Scope, answer: Answer, arrived: int, traced: str | None) -> None:
        facts = {
            "request_id": request_id, "method": scope["method"], "path": scope["path"][:200], "status": answer.status,
            "milliseconds": round((time.perf_counter_ns() - arrived) / 1e6, 3),
        }  # fmt: skip
        if traced:
            facts["traceparent"] = traced
        level = logging.DEBUG if answer.status < 400 else logging.INFO if answer.status < 429 else logging.WARNING
        LOG.log(level, "request", extra={"facts": facts})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await asyncio.to_thread(self.service.start)
        except Exception as error:
            LOG.exception("the API can't start")
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await asyncio.to_thread(self.service.stop)
        await send({"type": "lifespan.shutdown.complete"})

    def _table(self) -> list[Route]:
        ask, tell, look, run = ("predict",), ("label",), ("predict", "label"), ("admin",)
        rows: list[tuple[str, str, Handler, tuple[str, ...] | None, str]] = [
            ("POST", "invocations", self._invoke, ask, "mlflow"),
            ("POST", "models/{model}/invocations", self._invoke, ask, "mlflow"),
            ("POST", "v2/models/{model}/infer", self._infer, ask, "v2"),
            ("POST", "v2/models/{model}/versions/{version}/infer", self._infer, ask, "v2"),
            ("POST", "models/{model}/labels", self._label, tell, "labels"),
            ("GET", "models/{model}/reviews", self._reviews, tell, "reviews"),
            ("POST", "models/{model}/reviews", self._answer, tell, "reviews"),
            ("GET", "models", self._models, look, "models"),
            ("GET", "models/{model}", self._model, look, "models"),
            ("GET", "health", self._health, None, "health"),
            ("GET", "ping", self._ping, None, "health"),
            ("GET", "version", self._version, None, "health"),
            ("GET", "metrics", self._metrics, run, "metrics"),
            ("GET", "v2", self._server, None, "v2"),
            ("GET", "v2/health/live", self._live, None, "health"),
            ("GET", "v2/health/ready", self._ready, None, "health"),
            ("GET", "v2/models/{model}", self._metadata, look, "v2"),
            ("GET", "v2/models/{model}/ready", self._model_ready, None, "v2"),
            ("GET", "v2/models/{model}/versions/{version}", self._metadata, look, "v2"),
            ("GET", "v2/models/{model}/versions/{version}/ready", self._model_ready, None, "v2"),
            ("GET", "docs", self._docs, None, "docs"),
            *(("GET", f"docs/{name}", self._docs_file, None, "docs") for name in docs.FILES),
            ("GET", "openapi.json", self._openapi, None, "docs"),
        ]
        return [Route(method, tuple(path.split("/")), *rest) for method, path, *rest in rows]  # type: ignore[arg-type]

    # Scoring

    async def _invoke(self, call: Call) -> Answer:
        service, settings = self.service, self.service.settings
        body = await read_body(call.scope, call.receive, settings.most_body_bytes)
        served = service.served(call.model)
        definition = served.champion.definition
        kind = header(call.scope, b"content-type") or ""

        def prepare() -> Any:
            request = parse_request(body, kind, served.champion.schema, settings.most_rows)
            if query := call.scope["query_string"]:
                wanted = parse_qs(query.decode("latin-1")).get("output")
                request.output = take_output(wanted[-1]) if wanted else request.output
            _refuse_output(request.output, served.champion)
            service.clean(served, request)
            return request

        request = prepare() if len(body) < _LARGE_BODY else await service.batcher.run(prepare)
        scored = await service.score(served, request, call.arrived_ns)
        predictions = _predictions(scored, request.output or definition.serving.output, served.champion)
        document: dict[str, Any] = {
            "predictions": predictions, "model": served.champion.name, "version": scored.version, "ids": scored.ids,
        }  # fmt: skip
        if (many := served.champion.many) is not None:
            document["classes"] = many.names
        if scored.versions is not None:
            document["versions"] = scored.versions
        if scored.control is not None:
            document["control"] = scored.control
        if scored.bounds is not None:
            document["lower"], document["upper"] = scored.bounds
        if request.warnings:
            document["warnings"] = request.warnings
        answer = Answer(encode_json(document), headers={"x-model-version": str(scored.version)})
        seconds = (time.perf_counter_ns() - call.arrived_ns) / 1e9
        service.metrics.observe(served.champion.name, "mlflow", seconds, len(scored.ids))
        return answer

    async def _infer(self, call: Call) -> Answer:
        service, settings = self.service, self.service.settings
        body = await read_body(call.scope, call.receive, settings.most_body_bytes)
        served = self._of_version(call)
        definition, schema = served.champion.definition, served.champion.schema
        length = header(call.scope, b"inference-header-content-length")
        kind_of(header(call.scope, b"content-type") or "", BINARY)

        def prepare() -> v2.Inference:
            inference = v2.parse_inference(body, length, schema, definition, settings.most_rows)
            _refuse_output(inference.request.output, served.champion)
            service.clean(served, inference.request)
            return inference

        inference = prepare() if len(body) < _LARGE_BODY else await service.batcher.run(prepare)
        scored = await service.score(served, inference.request, call.arrived_ns)
        scores = np.array(scored.scores, dtype=np.float64)
        versions = scored.versions or [scored.version] * len(scores)
        words, many = partial(served.champion.words, scored.scores), served.champion.many
        columns: dict[str, Callable[[], Any]] = {
            "probability": lambda: scores,
            "prediction": lambda: scores,
            "label": lambda: words() if many else (scores >= served.champion.threshold).astype(np.int64),
            "word": words,
            "lower": lambda: _ends(scored, 0),
            "upper": lambda: _ends(scored, 1),
            "id": lambda: scored.ids,
            "version": lambda: np.array(versions, dtype=np.int64),
            "control": lambda: np.array(scored.control or [False] * len(scores), dtype=np.bool_),
        }
        content, headers = v2.answer(inference, definition, scored.version, columns, many.names if many else ())
        kind = headers.pop("content-type")
        seconds = (time.perf_counter_ns() - call.arrived_ns) / 1e9
        service.metrics.observe(served.champion.name, "v2", seconds, len(scored.ids))
        return Answer(content, 200, headers, kind)

    def _of_version(self, call: Call) -> Served:
        served = self.service.served(call.model)
        if call.version is not None and call.version != str(served.champion.version):
            raise Problem(
                404, f"version {call.version[:20]!r} of {served.champion.name} is not served",
                rule=f"version {served.champion.version}, or none for the champion",
            )  # fmt: skip
        return served

    # Labels and looking

    async def _label(self, call: Call) -> Answer:
        service = self.service
        body = await read_body(call.scope, call.receive, service.settings.most_body_bytes)
        kind_of(header(call.scope, b"content-type") or "")
        served = service.served(call.model)
        definition = served.champion.definition

        def prepare() -> list[Label]:
            return parse_labels(body, definition, served.champion.classes, service.settings.most_rows)

        labels = prepare() if len(body) < _LARGE_BODY else await service.batcher.run(prepare)
        return json_answer(await service.take_labels(served.champion.name, labels))

    async def _reviews(self, call: Call) -> Answer:
        query = parse_query(call.scope["query_string"])
        return json_answer(await self.service.ask_reviews(self.service.served(call.model), query))

    async def _answer(self, call: Call) -> Answer:
        body = await read_body(call.scope, call.receive, self.service.settings.most_body_bytes)
        kind_of(header(call.scope, b"content-type") or "")
        served = self.service.served(call.model)
        return json_answer(await self.service.take_reviews(served, parse_answers(body)))

    async def _models(self, call: Call) -> Answer:  # noqa: ARG002
        models = [
            {"name": name, "version": served.champion.version, "since": served.champion.manifest.get("at")}
            for name, served in sorted(self.service.host.served.items())
        ]
        return json_answer({"models": models})

    async def _model(self, call: Call) -> Answer:
        self.service.served(call.model)
        return json_answer(await self.service.describe(str(call.model)))

    async def _health(self, call: Call) -> Answer:  # noqa: ARG002
        return json_answer(self.service.about.health())

    async def _ping(self, call: Call) -> Answer:  # noqa: ARG002
        return Answer(b"\n")

    async def _version(self, call: Call) -> Answer:  # noqa: ARG002
        return Answer(__version__.encode(), content_type="text/plain; charset=utf-8")

    async def _metrics(self, call: Call) -> Answer:  # noqa: ARG002
        self.service.refresh_gauges()
        text = await asyncio.to_thread(self.service.metrics.exposition)
        text += await asyncio.to_thread(self.service.checked.exposition)
        return Answer(text, content_type="text/plain; version=0.0.4; charset=utf-8")

    # The Open Inference Protocol's other half

    async def _server(self, call: Call) -> Answer:  # noqa: ARG002
        return json_answer({"name": "perennial", "version": __version__, "extensions": ["binary_tensor_data"]})

    async def _live(self, call: Call) -> Answer:  # noqa: ARG002
        return json_answer({"live": True})

    async def _ready(self, call: Call) -> Answer:  # noqa: ARG002
        ready = bool(self.service.host.served) and not self.service.draining
        return json_answer({"ready": ready}, 200 if ready else 503, {} if ready else dict(_RETRY))

    async def _metadata(self, call: Call) -> Answer:
        champion = self._of_version(call).champion
        classes = champion.many.names if champion.many else ()
        return json_answer(v2.metadata(champion.definition, champion.schema, [champion.version], classes))

    async def _model_ready(self, call: Call) -> Answer:
        champion = self._of_version(call).champion
        return json_answer({"name": champion.name, "ready": True})

    async def _docs(self, call: Call) -> Answer:  # noqa: ARG002
        content, headers = docs.page()
        return Answer(content, 200, headers, "text/html; charset=utf-8")

    async def _docs_file(self, call: Call) -> Answer:
        content, kind = await asyncio.to_thread(docs.page_file, call.scope["path"].rpartition("/")[2])
        return Answer(content, 200, {"cache-control": "public, max-age=3600"}, kind)

    async def _openapi(self, call: Call) -> Answer:  # noqa: ARG002
        champions = {name: served.champion for name, served in self.service.host.served.items()}
        return json_answer(openapi(champions, self._tokens.needed))


def _ends(scored: Scored, side: int) -> np.ndarray:
    """The lower (0) or upper (1) ends of the intervals, NaN where the version has none."""
    return np.full(len(scored.ids), np.nan) if scored.bounds is None else np.array(scored.bounds[side])


def _refuse_output(output: str | None, champion: LoadedModel) -> None:
    if output is not None and champion.definition.task == "regression":
        raise Problem(422, "a regression has one output: its prediction", value=output, rule="no output")


def _predictions(scored: Scored, output: str, champion: LoadedModel) -> Sequence[Any]:
    definition = champion.definition
    if definition.task == "regression" or output == "probability":
        return scored.scores
    if champion.many is not None:
        words = champion.words(scored.scores)
        if output in ("label", "word"):
            return words
        pairs = zip(words, scored.scores, strict=True)
        return [{"label": word, "probability": score} for word, score in pairs]
    threshold = champion.threshold
    if output == "label":
        return [int(score >= threshold) for score in scored.scores]
    if output == "word":
        return champion.words(scored.scores)
    return [{"label": int(score >= threshold), "probability": score} for score in scored.scores]
