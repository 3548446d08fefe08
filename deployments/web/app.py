"""The page as an ASGI application: its routes, who may come in, and what every answer carries. No page is made here.

Nothing changes by GET. What changes something is a form of ours: it carries the session's own token, comes from this
very address, and names author and reason.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote

import anyio.to_thread
import jinja2
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from deployments.web import reviewing
from deployments.web.acts import ACTS, Actor, Done
from deployments.web.guard import (
    HEADERS,
    LOOPBACK_NAMES,
    POLICY,
    REPORT_POLICY,
    Hardened,
    Pace,
    from_elsewhere,
    safe_path,
)
from deployments.web.known import reading
from deployments.web.known.neighbours import Neighbours
from deployments.web.known.watch import Watcher
from deployments.web.settings import People, Person, Role, WebSettings
from deployments.web.shown import words
from deployments.web.shown.pages import Pages
from perennial import __version__
from perennial.errors import NotFoundError, PerennialError
from perennial.serving.settings import is_loopback
from perennial.workspace import Workspace

HERE = Path(__file__).parent
_MOST_FORM_BYTES = 65_536
_MOST_LISTENERS = 100
_BEAT_SECONDS, _STREAM_SECONDS = 15.0, 1800.0
_LOOK_SECONDS = 5.0
_THREADS, _MOST_TOLD, _ANSWERS_A_MINUTE = 6, 1000, 120
_NOBODY = Person("", "admin")


class Web:
    """The application's parts and handlers."""

    def __init__(
        self, workspace: Workspace, settings: WebSettings, *, watcher: Watcher, neighbours: Neighbours,
        clock: Callable[[], datetime],
    ) -> None:  # fmt: skip
        self.workspace, self.settings, self.clock = workspace, settings, clock
        self.people = People(settings.tokens)
        self.watcher, self.neighbours = watcher, neighbours
        self.pages = Pages(workspace, watcher, neighbours)
        self.actor = Actor(workspace, neighbours, clock)
        self._pace = Pace(settings.acts_a_minute)
        self._answers = Pace(_ANSWERS_A_MINUTE)
        self._listeners = 0
        self._told: dict[str, tuple[str, str]] = {}
        self._templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(HERE / "templates"), autoescape=True, undefined=jinja2.StrictUndefined,
            trim_blocks=True, lstrip_blocks=True,
        )  # fmt: skip
        self._templates.globals |= {"marks": words.MARKS, "acts": ACTS, "release": __version__}
        self._templates.filters |= {
            "number": words.number, "share": words.share, "moment": words.moment, "utc": words.utc, "span": words.span,
            "change": words.change, "outcome": words.outcome, "kind_of": words.kind_of, "quoted": _quoted,
            "coded": words.coded, "is_run": words.is_run,
        }  # fmt: skip

    # Reading.

    def overview(self, request: Request) -> Response:
        return self._page(request, "overview.html", self.pages.overview(self.clock()))

    def model(self, request: Request) -> Response:
        return self._page(request, "model.html", self.pages.model(_name(request), self.clock()))

    def checks(self, request: Request) -> Response:
        return self._page(request, "checks.html", self.pages.checks(_name(request)))

    def column(self, request: Request) -> Response:
        column = request.path_params["column"]
        return self._page(request, "column.html", self.pages.column(_name(request), column))

    def decision(self, request: Request) -> Response:
        found = self.pages.decision(_name(request), request.path_params["decision"])
        return self._page(request, "decision.html", found)

    def versions(self, request: Request) -> Response:
        return self._page(request, "versions.html", self.pages.versions(_name(request)))

    def version(self, request: Request) -> Response:
        found = self.pages.version(_name(request), request.path_params["number"])
        return self._page(request, "version.html", found)

    def comparison(self, request: Request) -> Response:
        left, right = request.path_params["number"], request.path_params["other"]
        return self._page(request, "comparison.html", self.pages.comparison(_name(request), left, right))

    def quarantine(self, request: Request) -> Response:
        rule = request.query_params.get("rule", "")
        return self._page(request, "quarantine.html", self.pages.quarantine(_name(request), self.clock(), rule))

    def backtest(self, request: Request) -> Response:
        return self._page(request, "backtest.html", self.pages.backtest(_name(request)))

    def review(self, request: Request) -> Response:
        person = self._person(request, "view")
        model, who = _name(request), person.name or request.session.get("by", "")
        shown = reviewing.page(self.workspace, model, who, self.clock(), self.pages.champion_reference(model))
        last = request.session.get("answered")
        known = last[1] if isinstance(last, list) and last[0] == model else ""
        return self._page(request, "review.html", shown | {"last": known})

    def review_image(self, request: Request) -> Response:
        self._person(request, "label")
        column, row = request.path_params["column"], request.query_params.get("id", "")
        content, kind = reviewing.image(self.workspace, _name(request), column, row)
        return Response(content, media_type=kind)

    def example(self, request: Request) -> Response:
        self._person(request, "view")
        asked = request.path_params
        entry = self.workspace.ledger(_name(request)).entry(asked["decision"])
        made = reading.example_picture(self.workspace, entry, asked["number"], asked["when"], asked["place"])
        return Response(made, media_type="image/jpeg")

    def report(self, request: Request) -> Response:
        self._person(request, "view")
        path = reading.report_file(self.workspace, _name(request), request.path_params["name"])
        policy = REPORT_POLICY if path.suffix == ".html" else POLICY
        return FileResponse(path, headers={"content-security-policy": policy})

    def health(self, _request: Request) -> Response:
        return Response('{"status": "ok"}', media_type="application/json")

    async def events(self, request: Request) -> Response:
        """Server-sent events: `changed` whenever anything that a page shows has changed."""
        self._person(request, "view")
        if self._listeners >= _MOST_LISTENERS:
            raise HTTPException(503, "too many pages are listening")
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(self._stream(), media_type="text/event-stream", headers=headers)

    async def _stream(self) -> AsyncIterator[str]:
        event, until = self.watcher.listen(), time.monotonic() + _STREAM_SECONDS
        self._listeners += 1
        try:
            yield f"retry: 3000\nevent: hello\ndata: {self.watcher.generation}\n\n"
            while time.monotonic() < until:
                try:
                    await asyncio.wait_for(event.wait(), _BEAT_SECONDS)
                except TimeoutError:
                    yield ": beat\n\n"
                    continue
                event.clear()
                yield f"event: changed\ndata: {self.watcher.generation}\n\n"
        finally:
            self._listeners -= 1
            self.watcher.leave(event)

    # Coming in.

    def sign_in_page(self, request: Request) -> Response:
        if not self.people.needed:
            return RedirectResponse("/", 303)
        return self._render(request, "sign_in.html", {"next": safe_path(request.query_params.get("next"))}, None)

    async def sign_in(self, request: Request) -> Response:
        self._pace.keep(request)
        form = await self._form(request)
        digest = self.people.enter(form.get("token", ""))
        if digest is None:
            shown = {"next": safe_path(form.get("next")), "refused": "this token is not known"}
            return self._render(request, "sign_in.html", shown, None, status=403)
        request.session.clear()
        request.session["token"] = digest
        return RedirectResponse(safe_path(form.get("next")), 303)

    async def sign_out(self, request: Request) -> Response:
        await self._form(request)
        request.session.clear()
        return RedirectResponse("/sign-in" if self.people.needed else "/", 303)

    # Acting.

    async def act(self, request: Request) -> Response:
        self._pace.keep(request)
        name, model = request.path_params["act"], _name(request)
        person = self._person(request, ACTS[name].role if name in ACTS else "approve")
        form = await self._form(request)
        by = person.name or form.get("by", "")
        try:
            done = await self.actor.act(name, model, form, by=by)
        except PerennialError as error:
            done = Done(False, str(error))
        if not person.name and by:
            request.session["by"] = by[:80]
        self._tell(request, done)
        self.neighbours.look_again()
        # Who has done something sees it done; where tables are far away, a moment later.
        await anyio.to_thread.run_sync(self.watcher.look_now, _LOOK_SECONDS)
        return RedirectResponse(safe_path(form.get("back")), 303)

    async def review_as(self, request: Request) -> Response:
        """Who reviews, where nobody signs in."""
        self._pace.keep(request)
        self._person(request, "label")
        form = await self._form(request)
        request.session["by"] = form.get("by", "").strip()[:80]
        return RedirectResponse(f"/models/{_name(request)}/review", 303)

    async def answer(self, request: Request) -> Response:
        self._answers.keep(request)
        person, model = self._person(request, "label"), _name(request)
        form = await self._form(request)
        who, now = person.name or request.session.get("by", ""), self.clock()
        try:
            told = await anyio.to_thread.run_sync(
                lambda: reviewing.answer(self.workspace, model, form, who=who, now=now)
            )
            self._tell(request, Done(True, told))
            # Of an answer that was taken back nothing is left to undo.
            request.session["answered"] = [model, "" if form.get("says") == "undo" else form.get("id", "")]
        except PerennialError as error:
            self._tell(request, Done(False, str(error)))
        return RedirectResponse(f"/models/{model}/review", 303)

    async def compare(self, request: Request) -> Response:
        self._pace.keep(request)
        self._person(request, "view")
        form = await self._form(request)
        model, left, right = _name(request), request.path_params["number"], form.get("other", "")
        if not re.fullmatch(r"[1-9][0-9]{0,8}", right):
            raise HTTPException(400, f"other = {right[:80]!r} is no version")
        done = await self.actor.compare(model, left, int(right))
        if not done.done:
            self._tell(request, done)
        return RedirectResponse(f"/models/{model}/versions/{left}/against/{right}", 303)

    # What handlers share.

    def _person(self, request: Request, role: Role) -> Person:
        """Who asks, if they may.

        Raises:
            _SignIn: Nobody is signed in, or no longer.
            HTTPException: Their token's role does not allow it.
        """
        if not self.people.needed:
            return _NOBODY
        person = self.people.named(request.session.get("token"))
        if person is None:
            raise _SignIn
        if not person.may(role):
            raise HTTPException(403, f"{person.name} may {person.role}; this needs a token of the role {role}")
        return person

    def _tell(self, request: Request, done: Done) -> None:
        """Keep what an act came to for the page that follows; in a cookie a long sentence would have no room."""
        while len(self._told) >= _MOST_TOLD:
            del self._told[next(iter(self._told))]
        key = secrets.token_urlsafe(12)
        self._told[key] = ("done" if done.done else "refused", done.told)
        request.session["told"] = key

    async def _form(self, request: Request) -> dict[str, str]:
        """The fields of a form that this very session was given.

        Raises:
            HTTPException: It is too long, or comes from elsewhere, or from a session that has ended.
        """
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > _MOST_FORM_BYTES:
                raise HTTPException(413, f"a form has at most {_MOST_FORM_BYTES} bytes")
        try:
            form = dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=50))
        except ValueError:
            raise HTTPException(400, "this is no form of ours") from None
        known = request.session.get("form")
        if from_elsewhere(request) or not isinstance(known, str) or not hmac.compare_digest(
            known.encode(), form.pop("form", "").encode()
        ):  # fmt: skip
            raise HTTPException(
                403, "this form was not made by this page for you, or your session has ended: nothing was changed. "
                "Open the page again and repeat it"
            )  # fmt: skip
        return form

    def _page(self, request: Request, template: str, shown: Mapping[str, Any]) -> Response:
        return self._render(request, template, shown, self._person(request, "view"))

    def _render(
        self, request: Request, template: str, shown: Mapping[str, Any], person: Person | None, status: int = 200
    ) -> Response:
        if "form" not in request.session:
            request.session["form"] = secrets.token_urlsafe(24)
        # What an act came to is shown once, to who has done it: not to a page that only follows what happens.
        told = None
        if "told" in request.session and "x-following" not in request.headers:
            told = self._told.pop(request.session.pop("told"), None)
        text = self._templates.get_template(template).render(
            {
                "refused": "", **shown, "person": person, "form_token": request.session["form"], "told": told,
                "now": self.clock(), "away": sorted(self.neighbours.away.items()), "by": request.session.get("by", ""),
                "path": request.url.path, "prefect_ui": self.neighbours.prefect.ui, "people": self.people.needed,
            }
        )  # fmt: skip
        return HTMLResponse(text, status)

    async def refused(self, request: Request, error: Exception) -> Response:
        """Any refusal as a page: what is wrong, and what to do."""
        if isinstance(error, _SignIn):
            if request.method != "GET":
                told = "your session has ended: nothing was changed. Sign in and repeat it"
                return self._problem(request, 401, told)
            if request.url.path == "/events":
                return Response(status_code=401)
            return RedirectResponse(f"/sign-in?next={quote(request.url.path)}", 303)
        if isinstance(error, HTTPException):
            return self._problem(request, error.status_code, error.detail)
        assert isinstance(error, PerennialError)
        return self._problem(request, 404 if isinstance(error, NotFoundError) else 503, str(error))

    async def broken(self, request: Request, _error: Exception) -> Response:
        """What nobody foresaw: it is in the log, whole; who asked is told so, and nothing else."""
        text = self._templates.get_template("broken.html").render({"path": request.url.path})
        return HTMLResponse(text, 500, headers=HEADERS)

    def _problem(self, request: Request, status: int, told: str) -> Response:
        person = _NOBODY if not self.people.needed else self.people.named(request.session.get("token"))
        return self._render(request, "problem.html", {"status": status, "problem": told}, person, status)


class _SignIn(Exception):
    """Nobody is signed in."""


def make_app(
    workspace: Workspace, settings: WebSettings, *, host: str = "127.0.0.1", pause_seconds: float = 1.0,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Starlette:  # fmt: skip
    """The application; its watcher runs as long as the application does.

    Args:
        host: What it is bound to: on loopback only loopback's names are answered, or a page elsewhere could have this
            one read by a name of its own.
    """
    neighbours = Neighbours(workspace.settings, clock=clock)
    watcher = Watcher(workspace, neighbours, pause_seconds, clock=clock)
    web = Web(workspace, settings, watcher=watcher, neighbours=neighbours, clock=clock)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        # Each thread that reads tables keeps memory of its own.
        anyio.to_thread.current_default_thread_limiter().total_tokens = _THREADS
        watcher.start()
        try:
            yield
        finally:
            await asyncio.to_thread(watcher.stop)
            neighbours.close()

    hosts = [name.strip() for name in settings.hosts.split(",") if name.strip()]
    allowed = [*hosts, *LOOPBACK_NAMES] if hosts or is_loopback(host) else ["*"]
    base = "/models/{model}"
    routes = [
        Route("/", web.overview),
        Route(base, web.model),
        Route(f"{base}/checks", web.checks),
        Route(f"{base}/columns/{{column:path}}", web.column),
        Route(f"{base}/decisions/{{decision}}", web.decision),
        Route(f"{base}/decisions/{{decision}}/examples/{{number:int}}/{{when}}/{{place:int}}", web.example),
        Route(f"{base}/versions", web.versions),
        Route(f"{base}/versions/{{number:int}}", web.version),
        Route(f"{base}/versions/{{number:int}}/against", web.compare, methods=["POST"]),
        Route(f"{base}/versions/{{number:int}}/against/{{other:int}}", web.comparison),
        Route(f"{base}/quarantine", web.quarantine),
        Route(f"{base}/review", web.review),
        Route(f"{base}/review", web.answer, methods=["POST"]),
        Route(f"{base}/review/as", web.review_as, methods=["POST"]),
        Route(f"{base}/review/images/{{column}}", web.review_image),
        Route(f"{base}/backtest", web.backtest),
        Route(f"{base}/reports/{{name}}", web.report),
        Route(f"{base}/acts/{{act}}", web.act, methods=["POST"]),
        Route("/events", web.events),
        Route("/health", web.health),
        Route("/sign-in", web.sign_in_page),
        Route("/sign-in", web.sign_in, methods=["POST"]),
        Route("/sign-out", web.sign_out, methods=["POST"]),
        Mount("/static", StaticFiles(directory=HERE / "static")),
    ]
    session: dict[str, Any] = {
        "secret_key": secrets.token_urlsafe(32), "session_cookie": _cookie(workspace), "same_site": "lax",
        "max_age": int(settings.session_hours * 3600), "https_only": settings.secure,
    }  # fmt: skip
    return Starlette(
        routes=routes,
        middleware=[
            Middleware(Hardened),
            Middleware(TrustedHostMiddleware, allowed_hosts=allowed, www_redirect=False),
            Middleware(SessionMiddleware, **session),
        ],
        exception_handlers={
            HTTPException: web.refused,
            PerennialError: web.refused,
            _SignIn: web.refused,
            Exception: web.broken,
        },
        lifespan=lifespan,
    )


def _cookie(workspace: Workspace) -> str:
    """The session's name, one for each home: a browser does not tell one port's cookies from another's."""
    return f"perennial-{hashlib.sha256(str(workspace.home).encode()).hexdigest()[:8]}"


def _name(request: Request) -> str:
    name: str = request.path_params["model"]
    return name


def _quoted(value: str) -> str:
    """A text as a part of a path."""
    return quote(value, safe="")
