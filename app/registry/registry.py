"""The registry of one process: what is defined, who may send and ask, and how the process follows changes of it."""

from __future__ import annotations

from app.config import Settings
from app.postgres.pool import Pool
from app.registry.access import AccessCache
from app.registry.change_polling import ChangePoller
from app.registry.compiled_rules import CompiledRules
from app.registry.definition_store import DefinitionStore
from app.registry.key_store import KeyStore
from app.registry.source_store import SourceStore
from app.registry.webhook_secrets import WebhookSecrets
from app.tracking_plan.plan_store import TrackingPlans


class Registry:
    """Snapshots that requests read (``access``, ``rules``, ``plans``), and stores that change what they show."""

    def __init__(self, pool: Pool, settings: Settings) -> None:
        self._pool = pool
        self.access = AccessCache(pool, settings)
        self.rules = CompiledRules(pool, settings)
        self.plans = TrackingPlans(pool)
        self._poller = ChangePoller(pool, self.access, self.rules, self.plans)
        self.sources = SourceStore(pool, self.access.refresh)
        self.keys = KeyStore(pool, self.access.refresh)
        self.webhook_secrets = WebhookSecrets(pool, settings, self.access.refresh)
        self.definitions = DefinitionStore(pool, settings, self.rules, self._poller.poll)

    @property
    def is_outdated(self) -> bool:
        """Whether this process can no longer read the definitions: it must be restarted."""
        return self._poller.is_outdated

    async def load(self, *, settle: bool = True) -> None:
        """Read all snapshots. ``settle``: this process's settings decide from now on what the definitions mean.

        Raises :class:`OtherSettings` without ``settle`` if the running processes have other settings.
        """
        await self.rules.settle_meanings(only_first=not settle)
        async with self._pool.acquire() as connection, connection.transaction(isolation="repeatable_read"):
            await self.rules.read(connection)
            await self.access.read(connection)
        async with self._pool.acquire() as connection:
            await self.plans.load(connection)
        if not self.access.current.signing_keys:
            await self.keys.renew_signing_key(only_first=True)

    def start(self) -> None:
        """Follow what other processes change."""
        self._poller.start()

    async def stop(self) -> None:
        await self._poller.stop()
