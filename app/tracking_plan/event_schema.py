"""JSON Schemas for event properties: compilation, and validation of messages. Pure.

Validation runs while other requests wait, so a schema is accepted only if it is cheap for every possible message.
Nothing is fetched, patterns take linear time, and references are not recursive.
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
EnforcedMode = Literal["warn", "quarantine"]
"""Modes in which messages are checked: every mode except ``off``."""

SCHEMA_BYTES_MAX: Final = 32_768
SCHEMA_LEVELS_MAX: Final = 32
NODES_MAX: Final = 1_000
"""Maximum number of subschemas, with references expanded. It limits the validation time of one value."""

SAMPLE_BYTES_MAX: Final = 2_000
_SAMPLE_VALUE_BYTES_MAX: Final = 200
_PATTERN_CHARS_MAX: Final = 500
_REASONS_MAX: Final = 10
_MESSAGE_CHARS_MAX: Final = 300
_LOCAL_REFERENCE: Final = "#/"

_PATTERNS: Final = jsonschema_rs.RegexOptions(size_limit=100_000, dfa_size_limit=1_000_000)
"""Options of the regex engine, which has no lookaround and no backreferences, and therefore never backtracks."""

_SCHEMAS_BY_NAME: Final = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_SCHEMAS_IN_ORDER: Final = ("allOf", "anyOf", "oneOf", "prefixItems")
_ONE_SCHEMA: Final = (
    "additionalItems", "additionalProperties", "contains", "contentSchema", "else", "if", "items", "not",
    "propertyNames", "then", "unevaluatedItems", "unevaluatedProperties",
)  # fmt: skip
_SIZE_OF_ALL_MAX: Final = 20_000
"""Maximum work for which all errors are collected: bytes of the schema times elements of the message.

The maximum takes about 20 ms.
"""
_REASON_CHARS_MAX: Final = 300
"""Maximum length of a reason in characters. A reason is part of a database index, whose rows have a size limit."""
_STRING_LITERAL: Final = re.compile(rb'"(?:[^"\\]|\\.)*"')
_REFUSED_KEYWORDS: Final = (
    "$id",
    "id",
    "$anchor",
    "$dynamicRef",
    "$dynamicAnchor",
    "$recursiveRef",
    "$recursiveAnchor",
)
_DEFINITION_KEYWORDS: Final = ("$defs", "definitions")

_decode = msgspec.json.Decoder(float_hook=Decimal).decode


class Violation(msgspec.Struct, frozen=True):
    """One violation of a schema.

    ``reason`` is a JSON pointer into the schema and does not contain values from the message. ``message`` explains the
    violation to a person.
    """

    reason: str
    message: str


class SchemaCheck:
    """A compiled schema."""

    def __init__(self, schema: dict[str, Any]) -> None:
        """Compile the schema. Raise :class:`InvalidDefinition` with the path inside the schema if it is invalid."""
        _SchemaInspector(schema).inspect()
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
            raise _build_error(
                error.instance_path, _take_first_line(error.message), "Use JSON Schema 2020-12."
            ) from None
        except ValueError as error:
            raise _build_error((), _take_first_line(str(error)), "Use JSON Schema 2020-12.") from None

    def find_violations(self, properties: bytes) -> list[Violation]:
        """Return the first few violations of ``properties``, a JSON object; an empty list if it is valid.

        If schema and properties are large, return only the first violation. The library computes all of them at once,
        with all errors of each alternative, and a client with a write key can send thousands of elements.
        """
        value = _decode(properties)
        if self._validator.is_valid(value):
            return []
        violations: dict[str, Violation] = {}
        for error in self._iter_errors(value, self._bytes * properties.count(b",")):
            reason = _locate_in_schema(error)
            violations.setdefault(reason, Violation(reason, _describe_error(error)))
        return list(violations.values())

    def _iter_errors(self, value: Any, size: int) -> Iterator[jsonschema_rs.ValidationError]:
        if size <= _SIZE_OF_ALL_MAX:
            yield from islice(self._validator.iter_errors(value), _REASONS_MAX)
            return
        try:
            self._validator.validate(value)
        except jsonschema_rs.ValidationError as error:
            yield error


def build_sample(properties: bytes) -> bytes:
    """Return a sample of properties for display, with long values truncated.

    Addresses and free text are replaced by their length: a sample is stored longer than its message, and redaction and
    erasure do not change it.
    """
    sample: dict[str, bytes] = {}
    size = 2
    for name, content in json_text.decode_members(properties).items():
        if name == "text" and content.startswith(b"{"):
            continue
        value = content if len(content) <= _SAMPLE_VALUE_BYTES_MAX else msgspec.json.encode(_truncate(content))
        value = _STRING_LITERAL.sub(_mask_text, value)
        size += len(msgspec.json.encode(name)) + len(value) + 2
        if size > SAMPLE_BYTES_MAX:
            break
        sample[name] = value
    return json_text.encode_members(sample)


def _mask_text(literal: re.Match[bytes]) -> bytes:
    """Mask text that may be personal: text with an @ or with more than three words.

    Shorter text is kept, because it may be the invalid enum value that caused the violation.
    """
    text = literal[0]
    return b'"(text of %d bytes)"' % (len(text) - 2) if b"@" in text or text.count(b" ") > 2 else text


def _truncate(content: bytes) -> str:
    return content[:_SAMPLE_VALUE_BYTES_MAX].decode("utf-8", "ignore") + "..."


def _locate_in_schema(error: jsonschema_rs.ValidationError) -> str:
    """Return the violated keyword as a JSON pointer into the schema.

    A pointer into the message would let clients cause an unlimited number of reasons.
    """
    path = [*error.schema_path]
    if isinstance(error.kind, jsonschema_rs.ValidationErrorKind.Required):
        path.append(error.kind.property)
    pointer = _build_pointer(path)
    if len(pointer) <= _REASON_CHARS_MAX:
        return pointer
    return f"{pointer[:_REASON_CHARS_MAX]}~{blake2b(pointer.encode(), digest_size=8).hexdigest()}"


def _describe_error(error: jsonschema_rs.ValidationError) -> str:
    property_path = ".".join(str(part) for part in ("properties", *error.instance_path))
    return f"{property_path}: {_take_first_line(error.message)}"[:_MESSAGE_CHARS_MAX]


def _take_first_line(text: str) -> str:
    return text.partition("\n")[0]


def _build_pointer(path: Any) -> str:
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)


def _build_error(path: Any, message: str, remedy: str) -> InvalidDefinition:
    return InvalidDefinition("/schema" + _build_pointer(path), message.rstrip("."), remedy)


class _SchemaInspector:
    """Checks a schema before it is compiled, and follows references as validation does."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._schema = schema
        self._nodes = 0

    def inspect(self) -> None:
        encoded = msgspec.json.Encoder(decimal_format="number").encode(self._schema)
        if len(encoded) > SCHEMA_BYTES_MAX:
            raise _build_error((), f"the schema has {len(encoded)} bytes", f"Use at most {SCHEMA_BYTES_MAX} bytes.")
        if json_text.is_deeper(encoded, SCHEMA_LEVELS_MAX):
            raise _build_error((), "the schema is nested too deeply", f"Use at most {SCHEMA_LEVELS_MAX} levels.")
        self._visit(self._schema, (), ())

    def _visit(self, schema: Any, path: tuple[Any, ...], references: tuple[str, ...]) -> None:
        """Check a subschema. ``references`` are the references that lead to it."""
        self._nodes += 1
        if self._nodes > NODES_MAX:
            raise _build_error(
                path,
                "the schema has too many subschemas",
                f"Use at most {NODES_MAX}; each reference to a subschema counts.",
            )
        if not isinstance(schema, dict):
            return  # A boolean is a valid schema; the compiler reports anything else.
        for name in _REFUSED_KEYWORDS:
            if name in schema:
                raise _build_error((*path, name), f"{name} is not supported", "Use $ref with #/$defs/... instead.")
        self._check_patterns(schema, path)
        if "$ref" in schema:
            self._follow_reference(schema["$ref"], (*path, "$ref"), references)
        for keywords, subschema in _iter_subschemas(schema):
            if keywords[0] in _DEFINITION_KEYWORDS and references:
                continue  # Definitions are counted once, without following references.
            self._visit(subschema, (*path, *keywords), references)

    def _follow_reference(self, reference: Any, path: tuple[Any, ...], references: tuple[str, ...]) -> None:
        if not isinstance(reference, str) or not reference.startswith(_LOCAL_REFERENCE):
            raise _build_error(path, "the reference points outside the schema", "Use #/$defs/... instead.")
        if reference in references:
            raise _build_error(path, "the reference is recursive", "Write out a fixed number of levels instead.")
        target: Any = self._schema
        for part in reference.removeprefix(_LOCAL_REFERENCE).split("/"):
            name = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(target, dict) or name not in target:
                raise _build_error(path, "the target of the reference does not exist", "Define it under $defs.")
            target = target[name]
        self._visit(target, path, (*references, reference))

    def _check_patterns(self, schema: Mapping[str, Any], path: tuple[Any, ...]) -> None:
        patterns = [((*path, "pattern"), schema.get("pattern", ""))]
        schemas_by_pattern = schema.get("patternProperties")
        if isinstance(schemas_by_pattern, dict):
            patterns += [((*path, "patternProperties", pattern), pattern) for pattern in schemas_by_pattern]
        for pattern_path, pattern in patterns:
            if isinstance(pattern, str) and len(pattern) > _PATTERN_CHARS_MAX:
                raise _build_error(
                    pattern_path, "the pattern is too long", f"Use at most {_PATTERN_CHARS_MAX} characters."
                )


def _iter_subschemas(schema: Mapping[str, Any]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield the direct subschemas of a schema, each with its path."""
    for name in _ONE_SCHEMA:
        value = schema.get(name)
        if isinstance(value, dict):
            yield (name,), value
        elif name == "items" and isinstance(value, list):
            yield from (((name, index), subschema) for index, subschema in enumerate(value))
    for name in _SCHEMAS_IN_ORDER:
        subschemas = schema.get(name)
        if isinstance(subschemas, list):
            yield from (((name, index), subschema) for index, subschema in enumerate(subschemas))
    for name in _SCHEMAS_BY_NAME:
        subschemas_by_name = schema.get(name)
        if isinstance(subschemas_by_name, dict):
            yield from (((name, key), subschema) for key, subschema in subschemas_by_name.items())
    dependencies = schema.get("dependencies")
    if isinstance(dependencies, dict):
        yield from (
            (("dependencies", key), subschema) for key, subschema in dependencies.items() if isinstance(subschema, dict)
        )
