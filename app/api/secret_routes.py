"""Declaration of routes that need a secret key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Security

from app.api.schemas import describe_problems
from app.http.auth import SecretKey


def add_secret_route(
    app: FastAPI,
    method: str,
    path: str,
    endpoint: Callable[..., Any],
    *,
    tag: str,
    summary: str,
    model: Any,
    status: int = 200,
    failures: tuple[int, ...] = (),
    extra: dict[str, Any] | None = None,
) -> None:
    """Add a route. ``failures`` are its error statuses except 401 and 403; ``extra`` extends its OpenAPI operation."""
    app.add_api_route(
        path,
        endpoint,
        methods=[method],
        tags=[tag],
        operation_id=endpoint.__name__,
        summary=summary,
        response_model=model,
        status_code=status,
        responses=describe_problems(401, 403, *failures),
        dependencies=[Security(SecretKey())],
        openapi_extra=extra,
    )
