"""Rows of definitions: every version of them, one of each current."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Literal

import msgspec

from app.db import Connection, Pool
from app.rules.language import JourneyIn, SegmentIn, parse_rule, rule_to_json
from app.rules.references import Definition, named_rules, references, segment_id, stages_of

Kind = Literal["segment", "journey"]


class Defined(msgspec.Struct, frozen=True):
    """The current version of a definition, with when it was saved."""

    definition: Definition
    created_at: int


LOCK = """
-- One change of definitions at a time: each is checked against all the others.
SELECT pg_advisory_xact_lock(hashtext('segue.definitions'))
"""

_DEFINITIONS = """
-- All current versions, with the revision they make up: one statement, so that the two belong together.
SELECT r.value AS revision, d.kind, d.key, d.version, d.name, d.description, d.owner, d.body, d.created_at
FROM (SELECT coalesce((SELECT value FROM revisions WHERE name = 'definitions'), 0) AS value) r
LEFT JOIN definitions d ON d.superseded_at IS NULL
ORDER BY d.kind, d.key
"""

LATEST_VERSION = "SELECT coalesce(max(version), 0) FROM definitions WHERE kind = $1 AND key = $2"

SUPERSEDE = "UPDATE definitions SET superseded_at = now() WHERE kind = $1 AND key = $2 AND superseded_at IS NULL"

_INSERT_VERSION = """
INSERT INTO definitions (kind, key, version, name, description, owner, body) VALUES ($1, $2, $3, $4, $5, $6, $7)
"""

_decode = msgspec.json.Decoder(float_hook=Decimal).decode

_encode = msgspec.json.Encoder(decimal_format="number").encode


async def lock_definitions(connection: Connection) -> tuple[int, list[Defined]]:
    await connection.execute(LOCK)
    return await read_definitions(connection)


async def current_definitions(connection: Connection) -> list[Defined]:
    return (await read_definitions(connection))[1]


async def read_definitions(connection: Connection | Pool) -> tuple[int, list[Defined]]:
    rows = await connection.fetch(_DEFINITIONS)
    return rows[0]["revision"], [_defined(row) for row in rows if row["key"] is not None]


def _defined(row: Any) -> Defined:
    _, kind, key, version, name, description, owner, body, created_at = row
    data = _decode(body)
    if kind == "segment":
        definition = Definition(kind, key, version, name, description, owner, parse_rule(data), ())
    else:
        stages = tuple((stage["key"], stage["name"], parse_rule(stage["rule"])) for stage in data)
        definition = Definition(kind, key, version, name, description, owner, None, stages)
    return Defined(definition, created_at)


def as_definition(wanted: SegmentIn | JourneyIn) -> Definition:
    if isinstance(wanted, SegmentIn):
        return Definition("segment", wanted.key, 0, wanted.name, wanted.description, wanted.owner, wanted.rule, ())
    stages = tuple((stage.key, stage.name, stage.rule) for stage in wanted.stages)
    return Definition("journey", wanted.key, 0, wanted.name, wanted.description, wanted.owner, None, stages)


async def insert_version(connection: Connection, definition: Definition) -> None:
    await connection.execute(SUPERSEDE, definition.kind, definition.key)
    await connection.execute(
        _INSERT_VERSION,
        definition.kind,
        definition.key,
        definition.version,
        definition.name,
        definition.description,
        definition.owner,
        _encode(body_of(definition)),
    )


def body_of(definition: Definition) -> Any:
    """What is stored, and shown: the rule of a segment, the stages of a journey, as the author wrote them."""
    if definition.rule is not None:
        return rule_to_json(definition.rule)
    return [{"key": key, "name": name, "rule": rule_to_json(rule)} for key, name, rule in definition.stages]


def say_the_same(one: Definition, other: Definition) -> bool:
    """Whether two versions differ in nothing but their number."""
    return msgspec.structs.replace(one, version=other.version) == other and _same_json(body_of(one), body_of(other))


def _same_json(one: Any, other: Any) -> bool:
    """Equal as a rule reads it: 1 is 1.0, but true, which Python takes for 1, is not."""
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(_same_json(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(_same_json, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def find(definitions: Sequence[Defined], kind: str, key: str) -> Defined | None:
    return next((each for each in definitions if (each.definition.kind, each.definition.key) == (kind, key)), None)


def readers_of(definitions: Sequence[Defined], kind: Kind, key: str, default_journey: str) -> list[str]:
    """Which other definitions name this one in a rule."""
    plain = [each.definition for each in definitions]
    stages = stages_of(plain)
    targets = {segment_id(key)} if kind == "segment" else {rule_id for _, rule_id in stages.get(key, ())}
    read = references(named_rules(plain), stages, default_journey)
    readers: dict[str, None] = {}
    for rule_id, found in read.items():
        reader_kind, reader_key = rule_id.split(":")[:2]
        reader_kind = "journey" if reader_kind == "stage" else reader_kind
        if (reader_kind, reader_key) != (kind, key) and any(targets.intersection(each.targets) for each in found):
            readers[f"{reader_kind} {reader_key}"] = None
    return list(readers)
