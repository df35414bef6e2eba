"""Saves, edits, archives and activates definitions. Owns the table definitions.

A change is checked against all other definitions under one lock and compiled before it is committed. It increments
the counter ``definitions`` in the table ``revisions``, so that every flush and read after the COMMIT uses the change.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import assert_never

import msgspec

from app.config import Settings
from app.errors import Conflict, NotFound
from app.postgres.pool import Connection, Pool, transact
from app.postgres.revisions import bump_revision
from app.registry.compiled_rules import CompiledRules
from app.registry.definition_rows import (
    DefinitionSet,
    DefinitionVersion,
    Kind,
    body_to_json,
    find_definition,
    is_same_definition,
    list_dependents,
    lock_definitions,
    read_definition,
    read_definitions,
)
from app.registry.rule_numbers import renumber
from app.rules.language.definitions import JourneyIn, SegmentIn, TraitIn
from app.rules.language.references import Definition

ParsedDefinition = SegmentIn | JourneyIn | TraitIn

_LATEST_VERSION = "SELECT coalesce(max(version), 0) FROM definitions WHERE kind = $1 AND key = $2"

_SUPERSEDE = "UPDATE definitions SET superseded_at = now() WHERE kind = $1 AND key = $2 AND superseded_at IS NULL"

_WITHDRAW = f"{_SUPERSEDE} AND activated_at IS NULL"

_SUPERSEDE_REPLACED = """
-- Supersede the versions that candidates replace; the same transaction activates all candidates.
UPDATE definitions d SET superseded_at = now()
FROM definitions c
WHERE c.kind = d.kind AND c.key = d.key AND c.superseded_at IS NULL AND c.activated_at IS NULL
  AND d.superseded_at IS NULL AND d.activated_at IS NOT NULL
"""

_ACTIVATE = "UPDATE definitions SET activated_at = now() WHERE superseded_at IS NULL AND activated_at IS NULL"

_INSERT_VERSION = """
INSERT INTO definitions (kind, key, version, name, description, owner, body, note, activated_at, public)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, CASE WHEN $9 THEN now() END, $10)
"""

_ANY_UNFILLED = """
-- Finds a customer that is not backfilled; stale ones are replayed from the log anyway. Index customers_to_fill.
SELECT EXISTS (SELECT FROM customers WHERE revision < $1 AND NOT stale)
"""

_ANY_CUSTOMER = "SELECT EXISTS (SELECT FROM customers)"

_encode = msgspec.json.Encoder(decimal_format="number").encode


class DefinitionStore:
    """Changes definitions. ``on_change`` reloads this process; the others notice a change within a second."""

    def __init__(
        self, pool: Pool, settings: Settings, rules: CompiledRules, on_change: Callable[[], Awaitable[None]]
    ) -> None:
        self._pool = pool
        self._default_journey = settings.default_journey
        self._rules = rules
        self._on_change = on_change

    async def list_current(self, kind: Kind) -> list[DefinitionVersion]:
        """Return the current definitions of a kind."""
        definitions = await read_definitions(self._pool)
        return [version for version in definitions.current if version.definition.kind == kind]

    async def get(self, kind: Kind, key: str) -> tuple[DefinitionVersion, DefinitionVersion | None]:
        """Return the current version and the candidate (or None) in one snapshot; raise NotFound."""
        if "\0" not in key:  # PostgreSQL text cannot contain NUL
            current, candidate = await read_definition(self._pool, kind, key)
            if current is not None:
                return current, candidate
        raise NotFound(f"The {kind} {key} does not exist.")

    async def define(self, parsed: ParsedDefinition, *, replace: bool) -> tuple[DefinitionVersion, bool]:
        """Save a definition; return it, and True if a new version was created. An unchanged definition creates none.

        A new definition is current immediately, and so is an edit that changes no meaning. Any other edit is a
        candidate until every customer is backfilled (:meth:`activate`); a later edit replaces the candidate.

        Raises:
            Conflict: the definition exists and ``replace`` is False.
            NotFound: the definition does not exist and ``replace`` is True.
            InvalidDefinition: the definitions would not compile together.
        """
        new = build_definition(parsed)

        async def save(connection: Connection) -> tuple[DefinitionVersion, bool]:
            definitions = await lock_definitions(connection)
            old = find_definition(definitions.current, new.kind, new.key)
            if old is not None and not replace:
                raise Conflict(f"The {new.kind} {new.key} already exists.")
            if old is None and replace:
                raise NotFound(f"The {new.kind} {new.key} does not exist.")
            latest = definitions.find_latest(new.kind, new.key)
            if latest is not None and is_same_definition(new, latest.definition):
                return latest, False
            await self._write_version(connection, definitions, new, parsed.note)
            saved = (await read_definitions(connection)).find_latest(new.kind, new.key)
            assert saved is not None
            return saved, True

        saved = await transact(self._pool, save)
        await self._on_change()
        return saved

    async def archive(self, kind: Kind, key: str) -> None:
        """Take a definition out of use; its versions are kept. Raise Conflict if another definition refers to it."""

        async def archive(connection: Connection) -> None:
            definitions = await lock_definitions(connection)
            if find_definition(definitions.current, kind, key) is None:
                raise NotFound(f"The {kind} {key} does not exist.")
            readers: dict[str, None] = {}
            for versions in (definitions.current, definitions.with_candidates_activated().current):
                readers |= dict.fromkeys(list_dependents(versions, kind, key, self._default_journey))
            if readers:
                raise Conflict(f"The {kind} {key} is used by {', '.join(readers)}.", readers=list(readers))
            await connection.execute(_SUPERSEDE, kind, key)
            await self._commit_set(connection, definitions, definitions.without(kind, key))

        await transact(self._pool, archive)
        await self._on_change()

    async def activate(self) -> bool:
        """Make all candidates current if every customer is backfilled; return True if candidates became current."""

        async def activate(connection: Connection) -> bool:
            definitions = await lock_definitions(connection)
            if not definitions.candidates or await connection.fetchval(_ANY_UNFILLED, definitions.fill):
                return False
            await connection.execute(_SUPERSEDE_REPLACED)
            await connection.execute(_ACTIVATE)
            await self._commit_set(connection, definitions, definitions.with_candidates_activated())
            return True

        activated = await transact(self._pool, activate)
        if activated:
            await self._on_change()
        return activated

    async def _write_version(
        self, connection: Connection, definitions: DefinitionSet, new: Definition, note: str
    ) -> None:
        version = 1 + await connection.fetchval(_LATEST_VERSION, new.kind, new.key)
        added = DefinitionVersion(msgspec.structs.replace(new, version=version), 0, note, 0)
        after = await self._add_version(connection, definitions, added)
        await insert_version(connection, added.definition, note, candidate=added in after.candidates)
        await self._commit_set(connection, definitions, after)

    async def _add_version(
        self, connection: Connection, definitions: DefinitionSet, added: DefinitionVersion
    ) -> DefinitionSet:
        """Return the definitions with a new version added.

        The version is a candidate if customers must be backfilled first.
        """
        kind, key = added.definition.kind, added.definition.key
        others = definitions.without(kind, key)
        at_once = msgspec.structs.replace(others, current=[*others.current, added])
        old = find_definition(definitions.current, kind, key)
        if old is None or not await connection.fetchval(_ANY_CUSTOMER):
            return at_once
        before = msgspec.structs.replace(others, current=[*others.current, old])
        later = msgspec.structs.replace(before, candidates=[*others.candidates, added])
        compute_meanings = self._rules.compute_meanings_after_activation
        if compute_meanings(later) == compute_meanings(before):
            return at_once
        return later

    async def _commit_set(self, connection: Connection, before: DefinitionSet, after: DefinitionSet) -> None:
        """Check that ``after`` compiles, also with its candidates activated, and assign numbers to its meanings."""
        if after.candidates:
            await asyncio.to_thread(self._rules.compile, after.with_candidates_activated())
        await renumber(connection, await asyncio.to_thread(self._rules.compile, after), before.numbers)
        await bump_revision(connection, "definitions")


def build_definition(parsed: ParsedDefinition) -> Definition:
    """Convert a parsed definition into a :class:`Definition` with version 0: the caller assigns the version."""
    common = {name: getattr(parsed, name) for name in ("key", "name", "description", "owner", "public")}
    match parsed:
        case SegmentIn():
            return Definition("segment", version=0, rule=parsed.rule, **common)
        case TraitIn():
            return Definition("trait", version=0, value=parsed.value, **common)
        case JourneyIn():
            stages = tuple((stage.key, stage.name, stage.rule) for stage in parsed.stages)
            contents = {stage.key: stage.content for stage in parsed.stages if stage.content is not None}
            return Definition("journey", version=0, stages=stages, contents=contents, **common)
        case _:
            assert_never(parsed)


async def insert_version(
    connection: Connection, definition: Definition, note: str = "", *, candidate: bool = False
) -> None:
    """Insert a version; it supersedes the candidate and, unless it is a candidate itself, the current version."""
    await connection.execute(_WITHDRAW if candidate else _SUPERSEDE, definition.kind, definition.key)
    await connection.execute(
        _INSERT_VERSION,
        definition.kind,
        definition.key,
        definition.version,
        definition.name,
        definition.description,
        definition.owner,
        _encode(body_to_json(definition)),
        note,
        not candidate,
        definition.public,
    )
