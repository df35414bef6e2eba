"""Converts rows of arbitrary files into messages by a mapping. Pure.

A mapping is a JSON or TOML object. Only ``columns`` is required::

    {
      "about": "Till receipts of the Berlin shop",
      "columns": {
        "Receipt": "message_id",
        "Sold at": "timestamp",
        "Card": "ids.loyalty_card",
        "E-Mail": ["email", "traits.email_of_receipt"],
        "Amount": "properties.total",
        "Remark": "text.remark",
        "Printed at": "ignore"
      },
      "constants": {"event": "Order Completed", "channel": "in_store", "properties.currency": "EUR"},
      "others": "properties",
      "values": {"event": {"RETURN": "Order Returned"}},
      "texts": ["properties.zip"],
      "zone": "Europe/Berlin",
      "times": ["%d.%m.%Y %H:%M"],
      "delimiter": ";",
      "decimal_comma": true,
      "skip_rows": 0,
      "skip_rows_after_header": 0
    }

- ``columns``: target (or list of targets) by column. Column names are compared without case, spaces, underscores and
  hyphens. In an NDJSON file a dotted name reaches into objects and must match exactly. Several columns may have the
  same target: the first one that is not empty is used, so that one mapping can read several versions of an export. A
  file may lack columns, as long as it has an identity and, for touchpoints, a time.
- Targets: ``event``, ``timestamp``, ``user_id``, ``email``, ``phone``, ``anonymous_id``, ``ids.<kind>``, ``channel``,
  ``message_id``, ``properties.<path>``, ``traits.<path>``, ``context.<path>``, ``text.<name>`` (free text, which rules
  cannot read) and ``ignore``.
- ``constants``: value by target, used if no column of the row sets the target.
- ``others``: target of all other columns: ``properties`` (the default), ``traits`` or ``ignore``.
- ``values``: by target, the values that replace the text of cells.
- ``texts``: targets whose cells stay text even if they look like numbers or booleans.
- ``zone``: time zone of times without an offset; without a zone such times are rejected.
- ``times``: formats of strptime, tried in order; ``%s`` stands for epoch numbers. The default accepts ISO 8601,
  20260504, 20260504101500, and epoch numbers (seconds to nanoseconds) since September 2001, because smaller numbers
  rarely are times.
- ``delimiter`` of a CSV file; by default the one of ``,`` ``;`` and tab that yields the most columns.
- ``decimal_comma``: read 1.234,50 as a number, and 1234.5 as text.
- ``skip_rows`` and ``skip_rows_after_header``: number of lines of a CSV file that are not records.

A row with an event becomes a touchpoint; if it also has traits, it becomes a touchpoint and an identify message. A row
without an event becomes an identify message. A row without a ``message_id`` gets a hash of its cells (in any order of
columns) and of the number of equal rows before it, so importing the same file twice stores each row once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import blake2b
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

import msgspec

from app.connectors.adapter import Call
from app.connectors.webhook_request import Unreadable
from app.formats import timestamps

IGNORE: Final = "ignore"
DELIMITERS: Final = (",", ";", "\t")

_IDENTITIES: Final = ("user_id", "email", "phone", "anonymous_id")
_PLAIN_PLACES: Final = frozenset({"event", "timestamp", "channel", "message_id", IGNORE, *_IDENTITIES})
_NESTED_PLACES: Final = ("ids", "properties", "traits", "context", "text")
_KIND = re.compile(r"[a-z0-9][a-z0-9_]{0,49}")

_GAPS = re.compile(r"[\s_-]+")
_NO_WORD = re.compile(r"\W+")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,2})?")
_COMMA_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,2}(?:\.[0-9]{3})+|[1-9][0-9]*)(?:,[0-9]+)?")
_NUMBER_CHARS_MAX: Final = 24
_FINE_FRACTION = re.compile(r"([.,][0-9]{6})[0-9]+")
_NAIVE_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[Tt ][0-9:.,]+)?")
_COMPACT_FORMATS: Final = {8: "%Y%m%d", 14: "%Y%m%d%H%M%S"}
"""Formats of dates without separators, by length; as epoch numbers they would mean 1970 or a year after 2286."""
_COMPACT_YEARS: Final = range(1900, 2100)
_EPOCH_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?")
_EPOCH_FORMAT: Final = "%s"
_LEAST_EPOCH: Final = 1_000_000_000_000_000
"""Smallest epoch number that is accepted without a declared format: 2001-09-09, in microseconds.

A smaller number is probably a date as a spreadsheet stores it: a number of days.
"""
_QUOTED_FORMULA = re.compile(r"'[=+\-@]")
_EPOCH: Final = datetime(1970, 1, 1)


class MappingRefused(ValueError):
    """Raised if a mapping is invalid or does not match the file. The message contains the reason."""


class FileMapping(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A column mapping; the module docstring describes its fields."""

    columns: dict[str, str | list[str]]
    about: str = ""
    constants: dict[str, Any] = {}
    others: Literal["properties", "traits", "ignore"] = "properties"
    values: dict[str, dict[str, Any]] = {}
    texts: list[str] = []
    zone: str | None = None
    times: list[str] = []
    delimiter: str | None = None
    decimal_comma: bool = False
    skip_rows: int = 0
    skip_rows_after_header: int = 0

    def places(self) -> set[str]:
        """Return all targets of columns and constants."""
        return {place for column in self.columns for place in list_places(self, column)} | set(self.constants)


def check_mapping(mapping: FileMapping) -> FileMapping:
    """Return the mapping; raise MappingRefused if it is invalid or could not import any row."""
    for place in (*mapping.places(), *mapping.values, *mapping.texts):
        if not _is_place(place):
            raise MappingRefused(f"{place!r} is not a valid target")
    _refuse_incomplete(mapping.places(), mapping)
    if "message_id" in mapping.constants:
        raise MappingRefused("`message_id` cannot be a constant: all rows would be stored as one message")
    if mapping.zone is not None:
        load_zone(mapping.zone)
    if mapping.delimiter is not None and len(mapping.delimiter) != 1:
        raise MappingRefused("the delimiter must be one character")
    if min(mapping.skip_rows, mapping.skip_rows_after_header) < 0:
        raise MappingRefused("the number of rows to skip must not be negative")
    if any("%" not in time_format for time_format in mapping.times):
        raise MappingRefused("a time format must contain directives such as %Y, %m and %d")
    return mapping


def list_places(mapping: FileMapping, column: str) -> list[str]:
    """Return the targets of a column; empty if the mapping does not contain the column."""
    places = mapping.columns.get(column, [])
    return [places] if isinstance(places, str) else places


def fold_name(column: str) -> str:
    """Return the column name for comparisons: without case, spaces, underscores and hyphens."""
    return _GAPS.sub("", column.casefold())


class RowReader:
    """Converts the rows of one file, in their order. ``columns`` is the header of a CSV file; None for NDJSON.

    Raises MappingRefused if the file lacks columns that the mapping needs.
    """

    def __init__(self, mapping: FileMapping, columns: Iterable[str] | None = None) -> None:
        self._mapping = mapping
        self._typed = columns is None
        """True for NDJSON, whose values have JSON types. In CSV a cell is text, which may represent a number."""
        self._zone = None if mapping.zone is None else load_zone(mapping.zone)
        self._places: dict[str, list[str]] = {}
        """Targets by folded column name."""
        for column in mapping.columns:
            self._places.setdefault(fold_name(column), []).extend(list_places(mapping, column))
        self._rank = {column: rank for rank, column in enumerate(self._places)}
        self._seen: set[int] = set()
        self._repeats: dict[int, int] = {}
        if columns is not None:
            present = {fold_name(column) for column in columns}
            available_places = {
                place for column, places in self._places.items() if column in present for place in places
            }
            _refuse_incomplete(available_places | set(mapping.constants), mapping, present)

    def map_row(self, row: dict[str, Any]) -> list[Call]:
        """Convert one row (cells by column, or an NDJSON object); raise Unreadable with the reason if it is invalid."""
        cells = self._list_cells(row)
        values = self._place_cells(cells)
        message_id = str(values["message_id"]) if "message_id" in values else self._derive_id(cells)
        identities = {kind: values[kind] for kind in _IDENTITIES if kind in values}
        occurred_at = self._parse_time(values["timestamp"]) if "timestamp" in values else None
        traits = values.get("traits", {})
        if "event" not in values:
            if not traits:
                raise Unreadable("the row has neither an event nor a trait")
            return [
                Call(id=message_id, occurred_at=occurred_at, traits=traits, ids=values.get("ids", {}), **identities)
            ]
        if occurred_at is None:
            raise Unreadable("the row has no time")
        touchpoint = Call(
            id=message_id,
            occurred_at=occurred_at,
            event=str(values["event"]),
            channel=str(values.get("channel", "")),
            properties=values.get("properties", {}),
            context=values.get("context", {}),
            text=values.get("text", {}),
            ids=values.get("ids", {}),
            **identities,
        )
        if not traits:
            return [touchpoint]
        return [
            touchpoint,
            Call(id=f"{message_id} traits", occurred_at=occurred_at, traits=traits, ids=touchpoint.ids, **identities),
        ]

    def _list_cells(self, row: dict[str, Any]) -> list[tuple[str, str, Any]]:
        """Return (folded column, column, cell) of all cells that are not empty or ignored.

        They are sorted by the order of the mapping, then by name.
        """
        cells = []
        for column, cell in _expand_cells(row, self._mapping.columns):
            name, value = fold_name(column), _trim_cell(cell)
            if value not in (None, "") and self._places.get(name) != [IGNORE]:
                cells.append((name, column, value))
        last = len(self._rank)
        return sorted(cells, key=lambda entry: (self._rank.get(entry[0], last), entry[0]))

    def _derive_id(self, cells: list[tuple[str, str, Any]]) -> str:
        name_value_pairs = sorted((name, repr(value)) for name, _, value in cells)
        digest = blake2b(repr(name_value_pairs).encode("utf-8", "replace"), digest_size=16).digest()
        key = int.from_bytes(digest[:8])
        if key not in self._seen:
            self._seen.add(key)
            return f"row-{digest.hex()}"
        self._repeats[key] = self._repeats.get(key, 1) + 1
        return f"row-{digest.hex()}-{self._repeats[key]}"

    def _place_cells(self, cells: list[tuple[str, str, Any]]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, column, cell in cells:
            for place in self._places.get(name) or self._default_places(column):
                if place != IGNORE:
                    _set_place(values, place, self._convert_cell(place, cell))
        for place, value in self._mapping.constants.items():
            _set_place(values, place, value)
        return values

    def _default_places(self, column: str) -> list[str]:
        others = self._mapping.others
        return [] if others == IGNORE else [f"{others}.{build_property_name(column)}"]

    def _convert_cell(self, place: str, cell: Any) -> Any:
        meanings = self._mapping.values.get(place)
        if meanings is not None and str(cell) in meanings:
            return meanings[str(cell)]
        inside = place.startswith(("properties.", "traits.", "context."))
        if self._typed or not inside or place in self._mapping.texts:
            return cell
        return _parse_number(cell, self._mapping.decimal_comma)

    def _parse_time(self, cell: Any) -> str:
        """Return the time as RFC 3339; raise Unreadable if it cannot be parsed."""
        text = str(cell)
        if self._mapping.times:
            return self._parse_declared_time(text)
        moment = parse_undeclared_time(text)
        return self._apply_zone(moment, text) if moment.tzinfo is None else _format_instant(moment)

    def _parse_declared_time(self, text: str) -> str:
        for form in self._mapping.times:
            if form == _EPOCH_FORMAT:
                if _EPOCH_NUMBER.fullmatch(text) and (instant := timestamps.parse(text)) is not None:
                    return timestamps.rfc3339(instant)
                continue
            try:
                moment = datetime.strptime(_FINE_FRACTION.sub(r"\1", text), form)
            except ValueError:
                continue
            if moment.tzinfo is None:
                return self._apply_zone(moment, text)
            return _format_instant(moment)
        raise Unreadable(f"the time {text[:64]!r} does not match any format in `times`")

    def _apply_zone(self, moment: datetime, text: str) -> str:
        """Return a local time as an instant in UTC.

        At a clock change, a skipped local time moves forward, and a repeated local time means its first occurrence.
        """
        if self._zone is None:
            raise Unreadable(f"the time {text[:64]!r} has no offset: set `zone` in the mapping")
        return _format_instant(moment.replace(tzinfo=self._zone))


def parse_undeclared_time(text: str) -> datetime:
    """Parse a time without a declared format; the result is naive if the text has no offset. Raise Unreadable."""
    if text.isascii() and text.isdecimal() and (form := _COMPACT_FORMATS.get(len(text))):
        return _parse_compact_time(text, form)
    instant = timestamps.parse(text)
    if instant is None:
        raise Unreadable(f"the time {text[:64]!r} is neither ISO 8601 nor an epoch number: add its format to `times`")
    if _EPOCH_NUMBER.fullmatch(text) and instant < _LEAST_EPOCH:
        raise Unreadable(
            f"the time {text[:64]!r} would be before 2001 as an epoch number: add `%s` to `times` if that is correct"
        )
    moment = _EPOCH + timedelta(microseconds=instant)
    return moment if _NAIVE_TIME.fullmatch(text) else moment.replace(tzinfo=UTC)


def _parse_compact_time(text: str, form: str) -> datetime:
    try:
        moment = datetime.strptime(text, form)
        if moment.year in _COMPACT_YEARS:
            return moment
    except ValueError:
        pass
    raise Unreadable(f"the time {text!r} is not a date like 20260504: add its format to `times`")


def build_property_name(column: str) -> str:
    """Convert a column name to a property name: ``Total (EUR)`` -> ``total_eur``. Letters of all scripts are kept."""
    return _NO_WORD.sub("_", column.strip().lower()).strip("_") or "column"


def _format_instant(moment: datetime) -> str:
    try:
        return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    except OverflowError:
        raise Unreadable("the time is outside the years 1 to 9999") from None


def _parse_number(cell: str, decimal_comma: bool) -> Any:
    """Return the cell as a number or boolean if it is one, else as text."""
    if cell in ("true", "false"):
        return cell == "true"
    if len(cell) > _NUMBER_CHARS_MAX or not (_COMMA_NUMBER if decimal_comma else _NUMBER).fullmatch(cell):
        return cell
    digits = cell.replace(".", "").replace(",", ".") if decimal_comma else cell
    return int(digits) if digits.lstrip("-").isdecimal() else Decimal(digits)


def _set_place(values: dict[str, Any], place: str, value: Any) -> None:
    """Set the value of a target, unless the target already has a value."""
    head, _, path = place.partition(".")
    if not path:
        values.setdefault(head, value)
        return
    *parents, last = path.split(".") if head != "ids" else [path]
    inner = values.setdefault(head, {})
    for parent in parents:
        inner = inner.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise Unreadable(f"{place} is inside a value that is not an object")
    inner.setdefault(last, value)


def _expand_cells(row: dict[str, Any], columns: Iterable[str]) -> Iterable[tuple[str, Any]]:
    """Yield the cells of a row. For a dotted column name, yield the value at that path inside an object of the row."""
    inside = [column for column in columns if "." in column and column not in row]
    reached = [(column, value) for column in inside if (value := _find_value(row, column)) is not None]
    yield from reached
    paths = [column.split(".") for column, _ in reached]
    for column, value in row.items():
        yield column, _drop_paths(value, [path[1:] for path in paths if path[0] == column])


def _drop_paths(value: Any, paths: list[list[str]]) -> Any:
    """Return an object without the values at ``paths``, which are columns of their own; None if it becomes empty."""
    if not paths or not isinstance(value, dict):
        return value
    remaining = {
        name: _drop_paths(member, [path[1:] for path in paths if path[0] == name])
        for name, member in value.items()
        if [name] not in paths
    }
    return {name: member for name, member in remaining.items() if member is not None} or None


def _find_value(row: dict[str, Any], path: str) -> Any:
    value: Any = row
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _trim_cell(cell: Any) -> Any:
    """Strip spaces, and the quote with which spreadsheets mark a formula as text."""
    if not isinstance(cell, str):
        return cell
    text = cell.strip()
    return text[1:] if _QUOTED_FORMULA.match(text) else text


def _is_place(place: str) -> bool:
    head, _, path = place.partition(".")
    if not path:
        return place in _PLAIN_PLACES
    return head in _NESTED_PLACES and all(path.split(".")) and (head != "ids" or _KIND.fullmatch(path) is not None)


def _refuse_incomplete(places: set[str], mapping: FileMapping, columns: set[str] | None = None) -> None:
    file_columns = "" if columns is None else f" (of the file's columns: {', '.join(sorted(columns)[:20])})"
    if not any(place in _IDENTITIES or place.startswith("ids.") for place in places):
        raise MappingRefused(
            "no column has an identity as target: `user_id`, `email`, `phone`, `anonymous_id` or `ids.<kind>`"
            f"{file_columns}"
        )
    if "event" in places and "timestamp" not in places:
        raise MappingRefused(f"touchpoints need a time: no column has the target `timestamp`{file_columns}")
    has_traits = mapping.others == "traits" or any(place.startswith("traits.") for place in places)
    if "event" not in places and not has_traits:
        raise MappingRefused(f"no column has the target `event` or `traits.<path>`{file_columns}")


def load_zone(name: str) -> ZoneInfo:
    """Return the time zone; raise MappingRefused if it is unknown."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise MappingRefused(f"unknown time zone {name!r}; use a name such as Europe/Berlin or UTC") from None
