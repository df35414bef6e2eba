"""The demo shop's own server: static files, logging in, a help desk, and the answer to why.

It is what a business has anyway. It knows who is logged in and vouches for that with a visitor token; it holds the
secret key; the page never sees it. People who are logged in are kept in memory: stopping forgets them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from examples.demo_shop.definitions import JOURNEY, SEGMENTS
from examples.demo_shop.loader import library, loader
from examples.demo_shop.why import visitor_of, why
from examples.demo_shop.workspace import PAGE, Workspace

STATIC: Final = Path(__file__).parent / "static"
SESSION_COOKIE: Final = "shop_session"

_PAGES: Final = ("/", "/products", "/products/{id}", "/search", "/cart", "/checkout", "/thanks", "/support", "/login")
_BODY_BYTES_MAX: Final = 20_000
_NAME_CHARS_MAX: Final = 100
_TEXT_CHARS_MAX: Final = 2_000
_UPSTREAM_SECONDS_MAX: Final = 10.0
_WRITING: Final = frozenset({"POST", "PUT", "DELETE", "PATCH"})

_Answer = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Person:
    """Who logged in. There is no password: it is a demo."""

    user_id: str
    first_name: str
    email: str


class Refused(Exception):
    """The page sent something that cannot be; the text says what."""


class Shop:
    """The handlers, over one workspace and one memory of sessions."""

    def __init__(self, workspace: Workspace, origin: str) -> None:
        self.workspace = workspace
        self.origin = origin
        self._sessions: dict[str, Person] = {}
        self._api: httpx.AsyncClient
        script = loader(workspace.url, workspace.page_key)
        tags = f"<script>{script}</script>\n  {library(workspace.url)}"
        html = (STATIC / "index.html").read_text()
        pictures = (STATIC / "pictures.svg").read_text()
        self._html = html.replace("<!-- pictures -->", pictures).replace("<!-- loader -->", tags)
        self._policy = _content_security_policy(script, workspace.url)

    @asynccontextmanager
    async def lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        secret = {"Authorization": f"Bearer {self.workspace.secret_key}"}
        async with httpx.AsyncClient(
            base_url=self.workspace.url, headers=secret, timeout=_UPSTREAM_SECONDS_MAX
        ) as self._api:
            yield

    # ------------------------------------------------------------------------------------------ pages

    async def page(self, _request: Request) -> Response:
        return Response(self._html, media_type="text/html", headers={"content-security-policy": self._policy})

    async def definitions(self, _request: Request) -> Response:
        """Names for what the page gets as keys."""
        stages = [{"key": stage["key"], "name": stage["name"]} for stage in JOURNEY["stages"]]
        segments = [{name: segment[name] for name in ("key", "name", "description")} for segment in SEGMENTS]
        return JSONResponse({"journey": {"key": JOURNEY["key"], "stages": stages}, "segments": segments})

    async def why(self, request: Request) -> Response:
        visitor = visitor_of(request.cookies)
        return JSONResponse({"known": False} if visitor is None else await why(self._api, visitor))

    # -------------------------------------------------------------------------------------- logging in

    async def session(self, request: Request) -> Response:
        """Who is logged in, for a page that was loaded anew."""
        return await self._vouched(request, self._person(request))

    async def log_in(self, request: Request) -> Response:
        asked = await _read(request, first_name=_NAME_CHARS_MAX, email=_NAME_CHARS_MAX)
        email = asked["email"].lower()
        person = Person(f"shop-{hashlib.sha256(email.encode()).hexdigest()[:12]}", asked["first_name"], email)
        answer = await self._vouched(request, person)
        session = secrets.token_urlsafe(24)
        self._sessions[session] = person
        answer.set_cookie(SESSION_COOKIE, session, httponly=True, samesite="lax")
        return answer

    async def log_out(self, request: Request) -> Response:
        self._sessions.pop(request.cookies.get(SESSION_COOKIE, ""), None)
        answer = JSONResponse({"person": None})
        answer.delete_cookie(SESSION_COOKIE)
        return answer

    def _person(self, request: Request) -> Person | None:
        return self._sessions.get(request.cookies.get(SESSION_COOKIE, ""))

    async def _vouched(self, request: Request, person: Person | None) -> JSONResponse:
        """The person, and a token with which the page may read what is known of them."""
        visitor = visitor_of(request.cookies)
        if person is None:
            return JSONResponse({"person": None})
        known = {"user_id": person.user_id, "first_name": person.first_name, "email": person.email}
        if visitor is None:
            return JSONResponse({"person": known, "visitor_token": None})
        asked = {"source": PAGE, "anonymous_id": visitor, "user_id": person.user_id}
        minted = await self._api.post("/v1/visitor-tokens", json=asked)
        return JSONResponse({"person": known, "visitor_token": minted.raise_for_status().json()["token"]})

    # ----------------------------------------------------------------------------------------- support

    async def open_ticket(self, request: Request) -> Response:
        """A help desk is a system of its own: it tells Segue itself, and the page hears of it from Segue."""
        asked = await _read(request, subject=_NAME_CHARS_MAX, text=_TEXT_CHARS_MAX)
        visitor, person = visitor_of(request.cookies), self._person(request)
        if visitor is None and person is None:
            raise Refused("Nobody to answer to: this browser keeps no cookies.")
        ticket = f"T-{secrets.randbelow(9000) + 1000}"
        message = {
            "messageId": str(uuid.uuid4()),
            "event": "Support Ticket Created",
            "anonymousId": visitor,
            "userId": None if person is None else person.user_id,
            "properties": {"ticket_id": ticket, "subject": asked["subject"], "text": asked["text"]},
            "context": {"library": {"name": "help-desk", "version": "1"}},
        }
        sent = await self._api.post("/v1/track", json=message, auth=(self.workspace.help_desk_key, ""))
        sent.raise_for_status()
        return JSONResponse({"ticket": ticket})


def create_shop(workspace: Workspace, origin: str) -> Starlette:
    """The whole shop, to be served under ``origin``."""
    shop = Shop(workspace, origin)
    routes = [
        *(Route(path, shop.page) for path in _PAGES),
        Route("/api/definitions", shop.definitions),
        Route("/api/why", shop.why),
        Route("/api/session", shop.session),
        Route("/api/session", shop.log_in, methods=["POST"]),
        Route("/api/session", shop.log_out, methods=["DELETE"]),
        Route("/api/tickets", shop.open_ticket, methods=["POST"]),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]

    async def refuse(_request: Request, error: Exception) -> Response:
        return JSONResponse({"message": str(error)}, 400)

    async def upstream(_request: Request, _error: Exception) -> Response:
        return JSONResponse({"message": "Segue does not answer just now."}, 502)

    async def guard(request: Request, answer: _Answer) -> Response:
        """Only the shop's own pages may write; nothing is kept in caches, so that an edited file shows at once."""
        if request.method in _WRITING and request.headers.get("origin") != origin:
            return JSONResponse({"message": "Only the shop's own pages may do this."}, 403)
        response = await answer(request)
        response.headers["x-content-type-options"] = "nosniff"
        response.headers["referrer-policy"] = "same-origin"
        response.headers["cache-control"] = "no-cache"
        return response

    return Starlette(
        routes=routes,
        lifespan=shop.lifespan,
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=guard)],
        exception_handlers={Refused: refuse, httpx.HTTPError: upstream},
    )


def _content_security_policy(script: str, segue: str) -> str:
    """As strict as it gets: one inline script by its hash, nothing from elsewhere but Segue, no text becomes code."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src 'self' {segue} 'sha256-{digest}'",
            f"connect-src 'self' {segue}",
            "style-src 'self'",
            "img-src 'self'",
            "form-action 'self'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        )
    )


async def _read(request: Request, **chars_max: int) -> dict[str, str]:
    """The fields of a JSON body: text, not empty, cut to its length. Raises :class:`Refused`."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _BODY_BYTES_MAX:
            raise Refused("That is too long.")
    try:
        asked: Any = json.loads(body)
    except ValueError:
        raise Refused("The body is not JSON.") from None
    found: dict[str, str] = {}
    for name, chars in chars_max.items():
        text = asked.get(name) if isinstance(asked, dict) else None
        if not isinstance(text, str) or not text.strip():
            raise Refused(f"{name.replace('_', ' ').capitalize()} is missing.")
        found[name] = text.strip()[:chars]
    return found
