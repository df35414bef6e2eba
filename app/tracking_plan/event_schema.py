"""What properties an event should have: one JSON Schema, compiled once, and what a message says against it. Pure.

A plan is checked while others wait, so a schema may be only what is cheap for every message there can be: nothing is
fetched, patterns take time linear in the text, and a reference never leads back to itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from hashlib import blake2b
from itertools import islice
from typing import Any, Final, Literal

import jsonschema_rs
import msgspec

from app.errors import InvalidDefinition
from app.formats import json_text

Mode = Literal["off", "warn", "quarantine"]

SCHEMA_BYTES_MAX: Final = 32_768
SCHEMA_LEVELS_MAX: Final = 32
NODES_MAX: Final = 1_000
"""Schemas within one schema, each counted wherever a reference leads to it: so many may be asked of one value."""

SAMPLE_BYTES_MAX: Final = 2_000
_SAMPLE_VALUE_BYTES_MAX: Final = 200
_PATTERN_CHARS_MAX: Final = 500
_REASONS_MAX: Final = 10
_MESSAGE_CHARS_MAX: Final = 300
_LOCAL: Final = "#/"

_PATTERNS: Final = jsonschema_rs.RegexOptions(size_limit=100_000, dfa_size_limit=1_000_000)
"""Its engine knows no looking around and no references back, and so never tries again what it has tried."""

_SCHEMAS_BY_NAME: Final = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_SCHEMAS_IN_ORDER: Final = ("allOf", "anyOf", "oneOf", "prefixItems")
_ONE_SCHEMA: Final = (
    "additionalItems", "additionalProperties", "contains", "contentSchema", "else", "if", "items", "not",
    "propertyNames", "then", "unevaluatedItems", "unevaluatedProperties",
)  # fmt: skip
_SIZE_OF_ALL_MAX: Final = 20_000
"""Bytes of the schema times elements of the message: some 20 ms of work."""
_REASON_CHARS_MAX: Final = 300
"""It is part of an index, which takes only so much."""
_WRITTEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*"')
_ELSEWHERE: Final = ("$id", "id", "$anchor", "$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor")
_NOT_APPLIED: Final = ("$defs", "definitions")

_decode = msgspec.json.Decoder(float_hook=Decimal).decode


class Violation(msgspec.Struct, frozen=True):
    """One thing that is wrong. ``reason`` is a place in the schema, never what was sent; ``message`` is for people."""

    reason: str
    message: str


class SchemaCheck:
    """A compiled schema."""

    def __init__(self, schema: dict[str, Any]) -> None:
        """Raises :class:`InvalidDefinition` with the path inside the schema."""
        _Reader(schema).read()
        try:
            self._validator = jsonschema_rs.validator_for(
                schema,
                offline=True,
                validate_formats=True,
                ignore_unknown_formats=False,
                mask="the value",
                pattern_options=_PATTERNS,
            )
            self._bytes = len(msgspec.json.encode(schema))
        except jsonschema_rs.ValidationError as error:
            raise _refused(error.instance_path, _first_line(error.message), "Write JSON Schema (2020-12).") from None
        except ValueError as error:
            raise _refused((), _first_line(str(error)), "Write JSON Schema (2020-12).") from None

    def violations(self, properties: bytes) -> list[Violation]:
        """Of a message's properties, which are a JSON object; the first few, none where all is well.

        Only the first where schema and properties are large: the library works all of them out at once, each with all
        that an alternative did not like, and whoever has a write key may send thousands of elements.
        """
        value = _decode(properties)
        if self._validator.is_valid(value):
            return []
        found: dict[str, Violation] = {}
        for error in self._errors(value, self._bytes * properties.count(b",")):
            reason = _reason(error)
            found.setdefault(reason, Violation(reason, _said(error)))
        return list(found.values())

    def _errors(self, value: Any, size: int) -> Iterator[jsonschema_rs.ValidationError]:
        if size <= _SIZE_OF_ALL_MAX:
            yield from islice(self._validator.iter_errors(value), _REASONS_MAX)
            return
        try:
            self._validator.validate(value)
        except jsonschema_rs.ValidationError as error:
            yield error


def sample_of(properties: bytes) -> bytes:
    """Properties to look at: long values cut short, and instead of addresses and of what people wrote how long it was.

    A sample outlives the message, and whoever asks for redaction or erasure is not found in it.
    """
    kept: dict[str, bytes] = {}
    size = 2
    for name, raw in json_text.decode_members(properties).items():
        if name == "text" and raw.startswith(b"{"):
            continue
        value = raw if len(raw) <= _SAMPLE_VALUE_BYTES_MAX else msgspec.json.encode(_cut(raw))
        value = _WRITTEN.sub(_masked, value)
        size += len(msgspec.json.encode(name)) + len(value) + 2
        if size > SAMPLE_BYTES_MAX:
            break
        kept[name] = value
    return json_text.encode_members(kept)


def _masked(found: re.Match[bytes]) -> bytes:
    """A word or two may be what is wrong with an enumeration; more, or an address, is somebody's."""
    text = found[0]
    return b'"(text of %d bytes)"' % (len(text) - 2) if b"@" in text or text.count(b" ") > 2 else text


def _cut(raw: bytes) -> str:
    return raw[:_SAMPLE_VALUE_BYTES_MAX].decode("utf-8", "ignore") + "..."


def _reason(error: jsonschema_rs.ValidationError) -> str:
    """The place in the schema: there are only so many, whatever clients invent."""
    path = [*error.schema_path]
    if isinstance(error.kind, jsonschema_rs.ValidationErrorKind.Required):
        path.append(error.kind.property)
    place = _pointer(path)
    if len(place) <= _REASON_CHARS_MAX:
        return place
    return f"{place[:_REASON_CHARS_MAX]}~{blake2b(place.encode(), digest_size=8).hexdigest()}"


def _said(error: jsonschema_rs.ValidationError) -> str:
    place = ".".join(str(part) for part in ("properties", *error.instance_path))
    return f"{place}: {_first_line(error.message)}"[:_MESSAGE_CHARS_MAX]


def _first_line(text: str) -> str:
    return text.partition("\n")[0]


def _pointer(path: Any) -> str:
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)


def _refused(path: Any, message: str, remedy: str) -> InvalidDefinition:
    return InvalidDefinition("/schema" + _pointer(path), message.rstrip("."), remedy)


class _Reader:
    """Walks a schema as it will be applied, before it is compiled."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._schema = schema
        self._nodes = 0

    def read(self) -> None:
        encoded = msgspec.json.Encoder(decimal_format="number").encode(self._schema)
        if len(encoded) > SCHEMA_BYTES_MAX:
            raise _refused((), f"it has {len(encoded)} bytes", f"At most {SCHEMA_BYTES_MAX} are taken.")
        if json_text.is_deeper(encoded, SCHEMA_LEVELS_MAX):
            raise _refused((), "it nests too deep", f"At most {SCHEMA_LEVELS_MAX} levels are taken.")
        self._visit(self._schema, (), ())

    def _visit(self, schema: Any, path: tuple[Any, ...], through: tuple[str, ...]) -> None:
        """``through`` are the references that led here."""
        self._nodes += 1
        if self._nodes > NODES_MAX:
            raise _refused(path, "too much would be asked of one message", f"At most {NODES_MAX} schemas are taken.")
        if not isinstance(schema, dict):
            return  # true, false; of anything else the compiler tells
        for name in _ELSEWHERE:
            if name in schema:
                raise _refused((*path, name), f"{name} is not taken", "Refer to #/$defs/... with $ref.")
        self._check_patterns(schema, path)
        if "$ref" in schema:
            self._follow(schema["$ref"], (*path, "$ref"), through)
        for place, inner in _within(schema):
            if place[0] in _NOT_APPLIED and through:
                continue  # counted once, where they stand
            self._visit(inner, (*path, *place), through)

    def _follow(self, reference: Any, path: tuple[Any, ...], through: tuple[str, ...]) -> None:
        if not isinstance(reference, str) or not reference.startswith(_LOCAL):
            raise _refused(path, "it refers to something outside of the schema", "Refer to #/$defs/... only.")
        if reference in through:
            raise _refused(path, "the reference leads back to itself", "Write out as many levels as there are.")
        target: Any = self._schema
        for part in reference.removeprefix(_LOCAL).split("/"):
            name = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(target, dict) or name not in target:
                raise _refused(path, "it refers to something that is not there", "Define it under $defs.")
            target = target[name]
        self._visit(target, path, (*through, reference))

    def _check_patterns(self, schema: Mapping[str, Any], path: tuple[Any, ...]) -> None:
        patterns = [((*path, "pattern"), schema.get("pattern", ""))]
        named = schema.get("patternProperties")
        patterns += [((*path, "patternProperties", each), each) for each in (named if isinstance(named, dict) else ())]
        for place, pattern in patterns:
            if isinstance(pattern, str) and len(pattern) > _PATTERN_CHARS_MAX:
                raise _refused(place, "the pattern is too long", f"At most {_PATTERN_CHARS_MAX} characters are taken.")


def _within(schema: Mapping[str, Any]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """The schemas directly inside one, with their places."""
    for name in _ONE_SCHEMA:
        value = schema.get(name)
        if isinstance(value, dict):
            yield (name,), value
        elif name == "items" and isinstance(value, list):
            yield from (((name, place), each) for place, each in enumerate(value))
    for name in _SCHEMAS_IN_ORDER:
        listed = schema.get(name)
        if isinstance(listed, list):
            yield from (((name, place), each) for place, each in enumerate(listed))
    for name in _SCHEMAS_BY_NAME:
        named = schema.get(name)
        if isinstance(named, dict):
            yield from (((name, key), each) for key, each in named.items())
    dependencies = schema.get("dependencies")
    if isinstance(dependencies, dict):
        yield from ((("dependencies", key), each) for key, each in dependencies.items() if isinstance(each, dict))
