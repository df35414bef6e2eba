"""Compiled rules of this process, which are compiled again when the definitions have changed."""

from __future__ import annotations

import asyncio

from app.config import Settings
from app.errors import OtherSettings
from app.postgres.pool import Connection, Pool, transact
from app.postgres.revisions import READ_REVISION, bump_revision
from app.registry.definition_rows import DefinitionSet, lock_definitions, read_definitions
from app.registry.rule_numbers import renumber
from app.rules.engine.ruleset import Ruleset, compile_ruleset, digest_meanings

_NEVER_READ = -1

_ANY_NUMBER = "SELECT EXISTS (SELECT FROM rule_numbers)"


class CompiledRules:
    """Cache of the newest compiled ruleset; compiles other revisions on request."""

    def __init__(self, pool: Pool, settings: Settings) -> None:
        self._pool = pool
        self._settings = settings
        self._compiling = asyncio.Lock()
        self.has_candidates = False
        """True if an edited definition waits for its backfill."""
        self.current = self.compile(DefinitionSet(_NEVER_READ, [], [], {}))

    async def read(self, connection: Connection) -> Ruleset:
        """Return the ruleset of the definitions that are visible to ``connection``; compile it if they have changed."""
        return await self.read_at(connection, await connection.fetchval(READ_REVISION, "definitions"))

    async def read_at(self, connection: Connection, revision: int) -> Ruleset:
        """Return the ruleset of a revision that the caller has already read.

        Raise OtherSettings if another process has changed the meaning of the definitions by its settings.
        """
        current = self.current
        if revision == current.revision:
            return current
        async with self._compiling:
            if self.current.revision == revision:
                return self.current
            definitions = await read_definitions(connection)
            # Compile in a thread: thousands of rules take a while, and requests share this event loop.
            ruleset = await asyncio.to_thread(self.compile, definitions)
            if not definitions.numbers.keys() >= set(ruleset.meanings.values()):
                raise OtherSettings(
                    "A process with another timezone, default journey or version was started later: "
                    "restart this process."
                )
            if ruleset.revision > self.current.revision:
                self.current = ruleset
                self.has_candidates = bool(definitions.candidates)
            return ruleset

    async def settle_meanings(self, *, only_first: bool) -> None:
        """Assign numbers to the meanings of all definitions under the settings of this process.

        Settings or the engine, and with them the meanings, may have changed since the last start. With ``only_first``,
        do nothing if meanings already have numbers.
        """
        if only_first and await self._pool.fetchval(_ANY_NUMBER):
            return

        async def settle(connection: Connection) -> None:
            definitions = await lock_definitions(connection)
            if await renumber(connection, self.compile(definitions), definitions.numbers):
                await bump_revision(connection, "definitions")

        await transact(self._pool, settle)

    def compile(self, definitions: DefinitionSet) -> Ruleset:
        """Compile definitions under the settings of this process."""
        return compile_ruleset(
            [version.definition for version in definitions.current],
            candidates=[version.definition for version in definitions.candidates],
            revision=definitions.revision,
            timezone=self._settings.timezone,
            default_journey=self._settings.default_journey,
            numbers=definitions.numbers,
            fill=definitions.fill,
        )

    def compute_meanings_after_activation(self, definitions: DefinitionSet) -> dict[str, str]:
        """Return the meaning of every rule as it will be when the candidates are current."""
        return digest_meanings(
            [version.definition for version in definitions.with_candidates_activated().current],
            timezone=self._settings.timezone,
            default_journey=self._settings.default_journey,
        )
