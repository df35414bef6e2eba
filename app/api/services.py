"""What the handlers of one application work with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from starlette.requests import Request

from app.config import Settings
from app.db import Clock, Pool
from app.ingest import Ingest
from app.metrics import Metrics
from app.registry import Registry


@dataclass(frozen=True, slots=True)
class Services:
    settings: Settings
    clock: Clock
    metrics: Metrics
    pool: Pool
    registry: Registry
    ingest: Ingest


def services(request: Request) -> Services:
    return cast(Services, request.scope["app"].state.services)
