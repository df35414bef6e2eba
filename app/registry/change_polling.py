"""Change polling: a process notices changes of other processes by the counters in the table ``revisions``."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

import structlog

from app.errors import OtherSettings
from app.postgres.pool import Pool
from app.postgres.revisions import READ_REVISIONS
from app.registry.access import AccessCache
from app.registry.compiled_rules import CompiledRules
from app.tracking_plan.plan_store import REVISION_NAME as TRACKING_PLAN
from app.tracking_plan.plan_store import TrackingPlans

_POLL_SECONDS: Final = 0.5

_log = structlog.get_logger(__name__)


class ChangePoller:
    """Reloads a snapshot when its counter has changed, so that a key revoked elsewhere is refused within a second."""

    def __init__(self, pool: Pool, access: AccessCache, rules: CompiledRules, plans: TrackingPlans) -> None:
        self._pool = pool
        self._access = access
        self._rules = rules
        self._plans = plans
        self._task: asyncio.Task[None] | None = None
        self.is_outdated = False
        """True if this process cannot read the current definitions and must be restarted."""

    def start(self) -> None:
        self._task = asyncio.create_task(self._poll_forever(), name="registry")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def poll(self) -> None:
        """Read the counters once and reload the snapshots that have changed."""
        async with self._pool.acquire() as connection:
            revisions = {row["name"]: row["value"] for row in await connection.fetch(READ_REVISIONS)}
            if revisions.get("access", 0) != self._access.current.revision:
                await self._access.reload(connection)
            if revisions.get("definitions", 0) != self._rules.current.revision:
                async with connection.transaction(isolation="repeatable_read"):
                    await self._rules.read(connection)
            if revisions.get(TRACKING_PLAN, 0) != self._plans.plan.revision:
                await self._plans.load(connection)

    async def _poll_forever(self) -> None:
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            try:
                await self.poll()
                self.is_outdated = False
            except OtherSettings as error:
                self.is_outdated = True
                _log.error("registry.superseded", reason=str(error))
            except Exception as error:  # noqa: BLE001 - the database may be unreachable; the snapshots stay valid
                _log.warning("registry.poll_failed", error=type(error).__name__)
