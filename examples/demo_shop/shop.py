"""Web server of the demo shop: static files, login, help desk and explanations.

It plays the role of a business's own server. It knows who is logged in and proves this to Segue with a visitor token.
It holds the secret key, which the page never receives. Login sessions are kept in memory and end with the process.
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
from examples.demo_shop.explanation import explain_visitor, read_visitor_id
from examples.demo_shop.snippet_tags import library, loader
from examples.demo_shop.workspace import PAGE, Workspace

STATIC: Final = Path(__file__).parent / "static"
SESSION_COOKIE: Final = "shop_session"

_PAGES: Final = ("/", "/products", "/products/{id}", "/search", "/cart", "/checkout", "/thanks", "/support", "/login")
_BODY_BYTES_MAX: Final = 20_000
_NAME_CHARS_MAX: Final = 100
_TEXT_CHARS_MAX: Final = 2_000
_UPSTREAM_SECONDS_MAX: Final = 10.0
_WRITING: Final = frozenset({"POST", "PUT", "DELETE", "PATCH"})

_Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Person:
    """A logged-in customer. The demo has no passwords."""

    user_id: str
    first_name: str
    email: str


class InvalidRequest(Exception):
    """The request body is invalid. The message explains why."""


class Shop:
    """Request handlers for one workspace, and the login sessions of its customers."""

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
        """Return the names of the stages and segments. The page itself knows only their keys."""
        stages = [{"key": stage["key"], "name": stage["name"]} for stage in JOURNEY["stages"]]
        segments = [{name: segment[name] for name in ("key", "name", "description")} for segment in SEGMENTS]
        return JSONResponse({"journey": {"key": JOURNEY["key"], "stages": stages}, "segments": segments})

    async def explanation(self, request: Request) -> Response:
        visitor = read_visitor_id(request.cookies)
        return JSONResponse({"known": False} if visitor is None else await explain_visitor(self._api, visitor))

    # ------------------------------------------------------------------------------------------- login

    async def session(self, request: Request) -> Response:
        """Return the logged-in person to a page that was reloaded."""
        return await self._session_response(request, self._person(request))

    async def log_in(self, request: Request) -> Response:
        fields = await _read_fields(request, first_name=_NAME_CHARS_MAX, email=_NAME_CHARS_MAX)
        email = fields["email"].lower()
        person = Person(f"shop-{hashlib.sha256(email.encode()).hexdigest()[:12]}", fields["first_name"], email)
        await self._link_email(person)
        response = await self._session_response(request, person)
        session = secrets.token_urlsafe(24)
        self._sessions[session] = person
        response.set_cookie(SESSION_COOKIE, session, httponly=True, samesite="lax")
        return response

    async def _link_email(self, person: Person) -> None:
        """Vouch for the address of the person, because the claim of a page does not affect what the page may read."""
        message = {"userId": person.user_id, "traits": {"first_name": person.first_name, "email": person.email}}
        response = await self._api.post("/v1/identify", json=message, auth=(self.workspace.server_key, ""))
        response.raise_for_status()

    async def log_out(self, request: Request) -> Response:
        self._sessions.pop(request.cookies.get(SESSION_COOKIE, ""), None)
        response = JSONResponse({"person": None})
        response.delete_cookie(SESSION_COOKIE)
        return response

    def _person(self, request: Request) -> Person | None:
        return self._sessions.get(request.cookies.get(SESSION_COOKIE, ""))

    async def _session_response(self, request: Request, person: Person | None) -> JSONResponse:
        """Return the person and a visitor token, which lets the page read the stages and segments of that person."""
        visitor = read_visitor_id(request.cookies)
        if person is None:
            return JSONResponse({"person": None})
        details = {"user_id": person.user_id, "first_name": person.first_name, "email": person.email}
        if visitor is None:
            return JSONResponse({"person": details, "visitor_token": None})
        body = {"source": PAGE, "anonymous_id": visitor, "user_id": person.user_id}
        response = await self._api.post("/v1/visitor-tokens", json=body)
        return JSONResponse({"person": details, "visitor_token": response.raise_for_status().json()["token"]})

    # ----------------------------------------------------------------------------------------- support

    async def open_ticket(self, request: Request) -> Response:
        """Report a ticket to Segue, as a separate help desk would. The page learns about the ticket only from Segue."""
        fields = await _read_fields(request, subject=_NAME_CHARS_MAX, text=_TEXT_CHARS_MAX)
        visitor, person = read_visitor_id(request.cookies), self._person(request)
        if visitor is None and person is None:
            raise InvalidRequest("Log in or allow cookies, so that we know who is asking.")
        ticket = f"T-{secrets.randbelow(9000) + 1000}"
        message = {
            "messageId": str(uuid.uuid4()),
            "event": "Support Ticket Created",
            "anonymousId": visitor,
            "userId": None if person is None else person.user_id,
            "properties": {"ticket_id": ticket, "subject": fields["subject"], "text": fields["text"]},
            "context": {"library": {"name": "help-desk", "version": "1"}},
        }
        response = await self._api.post("/v1/track", json=message, auth=(self.workspace.help_desk_key, ""))
        response.raise_for_status()
        return JSONResponse({"ticket": ticket})


def create_shop(workspace: Workspace, origin: str) -> Starlette:
    """Return the application of the shop, served at ``origin``."""
    shop = Shop(workspace, origin)
    routes = [
        *(Route(path, shop.page) for path in _PAGES),
        Route("/api/definitions", shop.definitions),
        Route("/api/explanation", shop.explanation),
        Route("/api/session", shop.session),
        Route("/api/session", shop.log_in, methods=["POST"]),
        Route("/api/session", shop.log_out, methods=["DELETE"]),
        Route("/api/tickets", shop.open_ticket, methods=["POST"]),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]

    async def refuse(_request: Request, error: Exception) -> Response:
        return JSONResponse({"message": str(error)}, 400)

    async def upstream(_request: Request, _error: Exception) -> Response:
        return JSONResponse({"message": "Segue is not available. Try again."}, 502)

    async def guard(request: Request, handle: _Handler) -> Response:
        """Refuse writes from other origins, and disable caching so that an edited file shows at once."""
        if request.method in _WRITING and request.headers.get("origin") != origin:
            return JSONResponse({"message": "Requests from other origins are refused."}, 403)
        response = await handle(request)
        response.headers["x-content-type-options"] = "nosniff"
        response.headers["referrer-policy"] = "same-origin"
        response.headers["cache-control"] = "no-cache"
        return response

    return Starlette(
        routes=routes,
        lifespan=shop.lifespan,
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=guard)],
        exception_handlers={InvalidRequest: refuse, httpx.HTTPError: upstream},
    )


def _content_security_policy(script: str, segue: str) -> str:
    """Return a strict policy: one inline script by hash, only Segue as another origin, Trusted Types required."""
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


async def _read_fields(request: Request, **chars_max: int) -> dict[str, str]:
    """Return text fields of a JSON body, cut to their maximum length. Raise InvalidRequest if one is empty."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _BODY_BYTES_MAX:
            raise InvalidRequest("The request is too large. Shorten the text.")
    try:
        body_json: Any = json.loads(body)
    except ValueError:
        raise InvalidRequest("The body is not JSON.") from None
    fields: dict[str, str] = {}
    for name, chars in chars_max.items():
        text = body_json.get(name) if isinstance(body_json, dict) else None
        if not isinstance(text, str) or not text.strip():
            raise InvalidRequest(f"{name.replace('_', ' ').capitalize()} is missing.")
        fields[name] = text.strip()[:chars]
    return fields
