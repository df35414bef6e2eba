"""Routes for the hot path, without FastAPI's dependency injection: the handler maps a request to a response.

These routes are in the OpenAPI document; their parameters and bodies are declared by hand.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

Handler = Callable[[Request], Awaitable[Response]]


class DirectRoute(APIRoute):
    """Route that calls ``endpoint`` with the request and sends the response that it returns."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        handler = cast(Handler, endpoint)

        async def call_handler(scope: Scope, receive: Receive, send: Send) -> None:
            response = await handler(Request(scope, receive, send))
            await response(scope, receive, send)

        self.app = call_handler
