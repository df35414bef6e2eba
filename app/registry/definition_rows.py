"""Reads definitions from their table: all versions in use at one revision, or one definition in one snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Literal, assert_never
from weakref import WeakValueDictionary

import msgspec

from app.postgres.pool import Connection, Pool
from app.rules.language.definitions import (
    parse_rule,
    parse_value,
    rule_to_json,
    value_to_json,
)
from app.rules.language.references import (
    Definition,
    collect_references,
    index_rules,
    segment_id,
    stages_by_journey,
    trait_id,
)

Kind = Literal["segment", "journey", "trait"]


class DefinitionVersion(msgspec.Struct, frozen=True):
    """A version of a definition that is current or a candidate, with the time and note of its creation."""

    definition: Definition
    created_at: int
    note: str = ""
    activated_at: int | None = None
    """Instant at which the version became current; None for a candidate, which becomes current after its backfill."""

    @property
    def id(self) -> str:
        """Kind and key, such as ``segment:vip``."""
        return f"{self.definition.kind}:{self.definition.key}"


class DefinitionSet(msgspec.Struct, frozen=True):
    """All definitions at one revision: current ones, candidates, and the numbers of their meanings."""

    revision: int
    current: list[DefinitionVersion]
    candidates: list[DefinitionVersion]
    numbers: dict[str, int]

    @property
    def fill(self) -> int:
        """Revision of customer rows whose state is complete for every rule: the highest rule number."""
        return max(self.numbers.values(), default=0)

    def find_latest(self, kind: str, key: str) -> DefinitionVersion | None:
        """Return the candidate of a definition, else its current version, else None."""
        return find_definition(self.candidates, kind, key) or find_definition(self.current, kind, key)

    def without(self, kind: str, key: str) -> DefinitionSet:
        """Return the definitions, with every version of one of them removed."""

        def select_others(definitions: Sequence[DefinitionVersion]) -> list[DefinitionVersion]:
            return [
                version for version in definitions if (version.definition.kind, version.definition.key) != (kind, key)
            ]

        return msgspec.structs.replace(
            self, current=select_others(self.current), candidates=select_others(self.candidates)
        )

    def with_candidates_activated(self) -> DefinitionSet:
        """Return the definitions as they will be when the candidates are current."""
        replaced = {candidate.id: candidate for candidate in self.candidates}
        current = [replaced.get(defined.id, defined) for defined in self.current]
        return msgspec.structs.replace(self, current=current, candidates=[])


_LOCK = """
-- Definitions are changed one at a time, because each change is checked against all other definitions.
SELECT pg_advisory_xact_lock(hashtext('segue.definitions'))
"""

_DEFINITIONS = """
-- The first row contains the revision and the numbers of meanings, the others the definitions in use. One statement
-- reads them, so that they belong together.
SELECT coalesce((SELECT value FROM revisions WHERE name = 'definitions'), 0) AS revision,
       (SELECT array_agg(meaning ORDER BY number) FROM rule_numbers) AS meanings,
       (SELECT array_agg(number ORDER BY number) FROM rule_numbers) AS numbers,
       NULL AS kind, NULL AS key, 0 AS version, NULL AS name, NULL AS description, NULL AS owner, NULL::jsonb AS body,
       NULL::timestamptz AS created_at, NULL AS note, NULL::timestamptz AS activated_at, NULL::boolean AS public
UNION ALL
SELECT 0, NULL, NULL,
       kind, key, version, name, description, owner, body, created_at, note, activated_at, public
FROM definitions WHERE superseded_at IS NULL
ORDER BY kind NULLS FIRST, key, version
"""

_DEFINITION = """
-- The current version of one definition, then its candidate, in one snapshot.
SELECT kind, key, version, name, description, owner, body, created_at, note, activated_at, public
FROM definitions WHERE kind = $1 AND key = $2 AND superseded_at IS NULL
ORDER BY activated_at NULLS LAST
"""

_decode = msgspec.json.Decoder(float_hook=Decimal).decode


async def lock_definitions(connection: Connection) -> DefinitionSet:
    """Lock the definitions until COMMIT, so that they are changed one at a time, and return them."""
    await connection.execute(_LOCK)
    return await read_definitions(connection)


async def read_definition(
    connection: Connection | Pool, kind: Kind, key: str
) -> tuple[DefinitionVersion | None, DefinitionVersion | None]:
    """Return the current version of one definition and its candidate; either may be None."""
    versions = [_version_from_row(tuple(row)) for row in await connection.fetch(_DEFINITION, kind, key)]
    current = next((version for version in versions if version.activated_at is not None), None)
    candidate = next((version for version in versions if version.activated_at is None), None)
    return current, candidate


async def read_definitions(connection: Connection | Pool) -> DefinitionSet:
    """Return all current definitions and candidates with their revision."""
    summary, *rows = await connection.fetch(_DEFINITIONS)
    versions = [_version_from_row(tuple(row)[3:]) for row in rows]
    return DefinitionSet(
        summary["revision"],
        [version for version in versions if version.activated_at is not None],
        [version for version in versions if version.activated_at is None],
        dict(zip(summary["meanings"] or (), summary["numbers"] or (), strict=True)),
    )


def _version_from_row(row: tuple[Any, ...]) -> DefinitionVersion:
    *columns, created_at, note, activated_at, public = row
    parsed = (*columns, public)
    definition = _definitions_in_use.get(parsed)
    if definition is None:
        definition = _definitions_in_use[parsed] = _parse_definition(*parsed)
    return DefinitionVersion(definition, created_at, note, activated_at)


_definitions_in_use: WeakValueDictionary[tuple[Any, ...], Definition] = WeakValueDictionary()
"""Columns of a definition -> definition, as long as a ruleset contains it.

Every change of one definition reads all others again. Parsing takes longer than anything else in a change.
"""


def _parse_definition(
    kind: Kind, key: str, version: int, name: str, description: str, owner: str, body: bytes, public: bool
) -> Definition:
    data = _decode(body)
    definition = Definition(kind, key, version, name, description, owner, public=public)
    match kind:
        case "segment":
            return msgspec.structs.replace(definition, rule=parse_rule(data))
        case "trait":
            return msgspec.structs.replace(definition, value=parse_value(data))
        case "journey":
            stages = tuple((stage["key"], stage["name"], parse_rule(stage["rule"])) for stage in data)
            contents = {stage["key"]: stage["content"] for stage in data if "content" in stage}
            return msgspec.structs.replace(definition, stages=stages, contents=contents)
        case _:
            assert_never(kind)


def body_to_json(definition: Definition) -> Any:
    """Return the JSON body as its author wrote it: rule of a segment, stages of a journey or value of a trait."""
    if definition.rule is not None:
        return rule_to_json(definition.rule)
    if definition.value is not None:
        return value_to_json(definition.value)
    contents = definition.contents
    return [
        {
            "key": key,
            "name": name,
            "rule": rule_to_json(rule),
            **({"content": contents[key]} if key in contents else {}),
        }
        for key, name, rule in definition.stages
    ]


def is_same_definition(new: Definition, old: Definition) -> bool:
    """Return True if two versions differ only in their number."""
    return msgspec.structs.replace(new, version=old.version) == old and _is_same_json(
        body_to_json(new), body_to_json(old)
    )


def _is_same_json(left: Any, right: Any) -> bool:
    """Compare as rules do: 1 equals 1.0, but true does not equal 1 as it does in Python."""
    if isinstance(left, dict):
        return (
            isinstance(right, dict)
            and left.keys() == right.keys()
            and all(_is_same_json(left[k], right[k]) for k in left)
        )
    if isinstance(left, list):
        return isinstance(right, list) and len(left) == len(right) and all(map(_is_same_json, left, right))
    return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)


def find_definition(definitions: Sequence[DefinitionVersion], kind: str, key: str) -> DefinitionVersion | None:
    return next(
        (version for version in definitions if (version.definition.kind, version.definition.key) == (kind, key)), None
    )


def list_dependents(definitions: Sequence[DefinitionVersion], kind: Kind, key: str, default_journey: str) -> list[str]:
    """Return kind and key of all other definitions whose rules refer to this one."""
    plain_definitions = [version.definition for version in definitions]
    stages = stages_by_journey(plain_definitions)
    match kind:
        case "segment":
            targets = {segment_id(key)}
        case "trait":
            targets = {trait_id(key)}
        case "journey":
            targets = {rule_id for _, rule_id in stages.get(key, ())}
        case _:
            assert_never(kind)
    references_by_rule = collect_references(index_rules(plain_definitions), stages, default_journey)
    readers: dict[str, None] = {}
    for rule_id, rule_references in references_by_rule.items():
        reader_kind, reader_key = rule_id.split(":")[:2]
        reader_kind = "journey" if reader_kind == "stage" else reader_kind
        if (reader_kind, reader_key) != (kind, key) and any(
            targets.intersection(reference.targets) for reference in rule_references
        ):
            readers[f"{reader_kind} {reader_key}"] = None
    return list(readers)
