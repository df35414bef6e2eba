"""Compiled rules: the ruleset of this process, recompiled when the definitions have changed."""

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
    """The newest ruleset that this process has compiled, and the way to any revision of it."""

    def __init__(self, pool: Pool, settings: Settings) -> None:
        self._pool = pool
        self._settings = settings
        self._compiling = asyncio.Lock()
        self.has_candidates = False
        """Whether an edited definition waits for its customers to be filled."""
        self.current = self.compile(DefinitionSet(_NEVER_READ, [], [], {}))

    async def read(self, connection: Connection) -> Ruleset:
        """The compiled definitions as ``connection`` sees them now; recompiled only when they have changed."""
        return await self.read_at(connection, await connection.fetchval(READ_REVISION, "definitions"))

    async def read_at(self, connection: Connection, revision: int) -> Ruleset:
        """The ruleset of a revision that the caller has read with a statement of its own.

        Raises :class:`OtherSettings` if another process gave the definitions another meaning.
        """
        current = self.current
        if revision == current.revision:
            return current
        async with self._compiling:
            if self.current.revision == revision:
                return self.current
            definitions = await read_definitions(connection)
            # Thousands of rules take a while, and requests share this event loop.
            ruleset = await asyncio.to_thread(self.compile, definitions)
            if not definitions.numbers.keys() >= set(ruleset.meanings.values()):
                raise OtherSettings(
                    "Another process was started later with another timezone, default journey or version: restart this."
                )
            if ruleset.revision > self.current.revision:
                self.current = ruleset
                self.has_candidates = bool(definitions.candidates)
            return ruleset

    async def settle_meanings(self, *, only_first: bool) -> None:
        """Number what the definitions mean under this process's settings; ``only_first``: unless they have numbers.

        Settings or the engine may have changed since the last start, and with them the meanings.
        """
        if only_first and await self._pool.fetchval(_ANY_NUMBER):
            return

        async def settle(connection: Connection) -> None:
            definitions = await lock_definitions(connection)
            if await renumber(connection, self.compile(definitions), definitions.numbers):
                await bump_revision(connection, "definitions")

        await transact(self._pool, settle)

    def compile(self, definitions: DefinitionSet) -> Ruleset:
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
        """The meaning of every rule as it will be when the candidates are current."""
        return digest_meanings(
            [version.definition for version in definitions.with_candidates_activated().current],
            timezone=self._settings.timezone,
            default_journey=self._settings.default_journey,
        )
