"""Registry of one process: definitions, sources, keys, secrets and the tracking plan, kept up to date by polling."""

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
    """Snapshots that requests read (``access``, ``rules``, ``plans``), and the stores that change their content."""

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
        """True if this process cannot read the current definitions and must be restarted."""
        return self._poller.is_outdated

    async def load(self, *, settle: bool = True) -> None:
        """Read all snapshots.

        With ``settle``, the settings of this process (timezone, default journey) apply to all definitions from now on.

        Raises:
            OtherSettings: ``settle`` is False, and the running processes use other settings.
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
        """Start polling for changes of other processes."""
        self._poller.start()

    async def stop(self) -> None:
        await self._poller.stop()
