"""Infers a mapping from the columns and first rows of a file. Pure.

The target of a column is inferred from its name, or else from its cells. Time zones, the order of day and month in
03/04/2026, and the meaning of 1,234 are not inferred: they are doubts, which the user has to answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import product
from typing import Final, Literal, assert_never

import msgspec

from app.connectors.webhook_request import Unreadable
from app.formats import timestamps
from app.imports.mapping import FileMapping, MappingRefused, fold_name, load_zone, parse_undeclared_time

_NAMES: Final[dict[str, tuple[str, ...]]] = {
    "timestamp": (
        *("timestamp", "occurredat", "eventdatetime", "date/time", "datetime", "createdat", "date", "time"),
        *("eventtime", "orderedat", "soldat", "submittedat", "startdate"),
    ),
    "event": ("event", "eventname", "touchpoint", "eventtype", "type"),
    "channel": ("channel", "source"),
    "user_id": ("userid", "customerid", "externalid"),
    "email": ("email", "emailaddress", "customeremail", "recipient"),
    "anonymous_id": ("anonymousid", "clientid", "deviceid"),
    "phone": ("phone", "phonenumber", "mobile", "mobilephone"),
    "ids.loyalty_card": ("loyaltycard", "loyaltycardnumber", "cardnumber"),
    "message_id": ("messageid", "eventid", "id"),
}
"""Column names by target, in order of precedence. The names are folded for comparison."""

_DAYS: Final = (
    *("%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d", "%d/%m/%y", "%m/%d/%y", "%d.%m.%y"),
    *("%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y", "%b %d %Y"),
)
_CLOCKS: Final = ("", "%H:%M", "%H:%M:%S", "%H:%M:%S.%f", "%I:%M %p", "%I:%M:%S %p")
_BETWEEN: Final = (" ", ", ", "T")
_OFFSETS: Final = ("", " %z", "%z")
_FORMATS: Final = tuple(
    dict.fromkeys(
        day if not clock else f"{day}{between}{clock}{offset}"
        for day, clock, between, offset in product(_DAYS, _CLOCKS, _BETWEEN, _OFFSETS)
    )
)
_FINE_FRACTION = re.compile(r"([.,][0-9]{6})[0-9]+")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_COMMA_NUMBER = re.compile(r"-?[0-9.]*[0-9],([0-9]+)")
_POINT_NUMBER = re.compile(r"-?[0-9]+\.[0-9]+")
_POINT_THOUSANDS = re.compile(r"-?[1-9][0-9]{0,2}(?:\.[0-9]{3})+")
_THOUSANDS: Final = 3
_CELLS_TRIED: Final = 20
_FAULTS_ONE_OF: Final = 10
"""Tolerance of the inference: one in ten cells may be invalid."""

Topic = Literal["zone", "times", "event", "who", "when", "decimal_comma"]
ZONE: Final = "zone"
TIMES: Final = "times"
EVENT: Final = "event"
WHO: Final = "who"
WHEN: Final = "when"
DECIMAL_COMMA: Final = "decimal_comma"


class Doubt(msgspec.Struct, frozen=True):
    """A question to the user; if ``choices`` is not empty, the answer must be one of them."""

    about: Topic
    question: str
    choices: tuple[str, ...] = ()


class InferredMapping(msgspec.Struct, frozen=True):
    """An inferred mapping, which is complete once its doubts are resolved."""

    mapping: FileMapping
    doubts: tuple[Doubt, ...] = ()


def infer_mapping(
    columns: Sequence[str], rows: Sequence[Mapping[str, str]], delimiter: str | None = None
) -> InferredMapping:
    """Infer a mapping from the columns and the first rows. With more rows, fewer doubts remain."""
    samples = {column: [row[column].strip() for row in rows if row.get(column, "").strip()] for column in columns}
    places = _infer_places(columns, samples)
    used_targets = set(places.values())
    doubts: list[Doubt] = []
    mapping = FileMapping(columns=dict(places), delimiter=delimiter)
    if not used_targets & {"user_id", "email", "anonymous_id", "phone", "ids.loyalty_card"}:
        doubts.append(Doubt(WHO, "Which column contains the user id?", tuple(columns)))
    if "event" not in used_targets and "timestamp" not in used_targets:
        mapping.others = "traits"
    elif "event" not in used_targets:
        doubts.append(Doubt(EVENT, "What is the name of the event in these rows?"))
    elif "timestamp" not in used_targets:
        doubts.append(Doubt(WHEN, "Which column contains the time?", tuple(columns)))
    doubts += _infer_time_formats(mapping, _find_cells_of_place(places, samples, "timestamp"))
    doubts += _infer_decimal_comma(mapping, [samples[name] for name in columns if name not in places])
    return InferredMapping(mapping, tuple(doubts))


def apply_answer(
    inferred: InferredMapping, about: Topic, answer: str, rows: Sequence[Mapping[str, str]] = ()
) -> InferredMapping:
    """Return the mapping with one doubt resolved; the answer may raise new doubts.

    Raise MappingRefused if the answer is invalid.
    """
    mapping = msgspec.structs.replace(inferred.mapping, columns=dict(inferred.mapping.columns))
    doubts = [doubt for doubt in inferred.doubts if doubt.about != about]
    if not answer.strip() or (about == TIMES and "%" not in answer):
        raise MappingRefused(f"the answer {answer!r} is empty or not a time format such as %d.%m.%Y")
    if about == ZONE:
        load_zone(answer)
        mapping.zone = answer
    elif about == TIMES:
        mapping.times = [answer]
        is_naive = "%z" not in answer and "%s" not in answer
        if is_naive and mapping.zone is None and all(doubt.about != ZONE for doubt in doubts):
            doubts.append(_ZONE_DOUBT)
    elif about == EVENT:
        mapping.constants = {**mapping.constants, "event": answer}
    elif about == DECIMAL_COMMA:
        mapping.decimal_comma = answer == "yes"
    elif about == WHO:
        mapping.columns[answer] = "user_id"
    elif about == WHEN:
        mapping.columns[answer] = "timestamp"
        doubts += _infer_time_formats(mapping, [row[answer].strip() for row in rows if row.get(answer, "").strip()])
    else:
        assert_never(about)
    return InferredMapping(mapping, tuple(doubts))


def _infer_places(columns: Sequence[str], samples: Mapping[str, list[str]]) -> dict[str, str]:
    by_name: dict[str, str] = {}
    for column in columns:
        by_name.setdefault(fold_name(column), column)
    places: dict[str, str] = {}
    for place, names in _NAMES.items():
        fitting = (by_name[name] for name in names if name in by_name and by_name[name] not in places)
        likely = next((column for column in fitting if _is_plausible(place, samples[column])), None)
        if likely is not None:
            places[likely] = place
    if "email" not in places.values():
        addresses = (column for column in columns if column not in places and _all_match(_EMAIL, samples[column]))
        if (likely := next(addresses, None)) is not None:
            places[likely] = "email"
    return {column: places[column] for column in columns if column in places}


def _is_plausible(place: str, cells: list[str]) -> bool:
    if place == "message_id":
        return len(set(cells)) == len(cells)
    if place != "timestamp" or not cells:
        return True
    return any(timestamps.parse(cell) is not None for cell in cells) or bool(_find_candidate_formats(cells))


_ZONE_DOUBT: Final = Doubt(
    ZONE, "The times have no offset. Which time zone do they use (such as Europe/Berlin or UTC)?"
)


def _infer_time_formats(mapping: FileMapping, cells: list[str]) -> list[Doubt]:
    if not cells:
        return []
    moments = [moment for cell in cells if (moment := _try_parse_time(cell)) is not None]
    if _is_nearly_all(len(moments), len(cells)):
        return [_ZONE_DOUBT] if any(moment.tzinfo is None for moment in moments) else []
    formats = _find_matching_formats(cells)
    distinct_formats = {form.replace("%B", "%b") for form in formats}  # "May" is a full month name and an abbreviation
    if len(distinct_formats) != 1:
        question = (
            f"What is the format of {cells[0]!r}? %d is the day, %m month, %Y year, %H:%M:%S time, %s an epoch number."
        )
        return [Doubt(TIMES, question, tuple(formats))]
    mapping.times = formats
    return [] if "%z" in formats[0] else [_ZONE_DOUBT]


def _try_parse_time(cell: str) -> datetime | None:
    try:
        return parse_undeclared_time(cell)
    except Unreadable:
        return None


def _find_matching_formats(cells: Sequence[str]) -> list[str]:
    """Return the formats that match the most cells; empty if they do not match nearly all cells."""
    matches = {form: sum(_matches_format(cell, form) for cell in cells) for form in _find_candidate_formats(cells)}
    most = max(matches.values(), default=0)
    return [form for form, count in matches.items() if count == most] if _is_nearly_all(most, len(cells)) else []


def _find_candidate_formats(cells: Sequence[str]) -> list[str]:
    """Return the formats that match any of the first cells.

    It tries all cells with one format before the next one, because strptime caches only a few formats.
    """
    return [form for form in _FORMATS if any(_matches_format(cell, form) for cell in cells[:_CELLS_TRIED])]


def _is_nearly_all(count: int, total: int) -> bool:
    """Return True if at most one cell, or one in ten cells, does not match."""
    return count > 0 and total - count <= max(1, total // _FAULTS_ONE_OF)


def _matches_format(cell: str, form: str) -> bool:
    try:
        datetime.strptime(_FINE_FRACTION.sub(r"\1", cell), form)
    except ValueError:
        return False
    return True


def _infer_decimal_comma(mapping: FileMapping, columns: Sequence[list[str]]) -> list[Doubt]:
    """Infer whether numbers have a decimal comma.

    Columns are examined one by one: a 1.2 in one column does not explain a 1,234 in another.
    """
    if any(map(_has_decimal_comma, columns)) and not any(map(_has_decimal_point, columns)):
        mapping.decimal_comma = True
        return []
    for cells in columns:
        with_comma = next((cell for cell in cells if _COMMA_NUMBER.fullmatch(cell)), None)
        if with_comma is not None and not any(_POINT_NUMBER.fullmatch(cell) for cell in cells):
            return [Doubt(DECIMAL_COMMA, f"Is {with_comma!r} a number with a decimal comma?", ("yes", "no"))]
        if mapping.delimiter == ";" and _all_match(_POINT_THOUSANDS, cells):
            question = f"Do points separate thousands, so that {cells[0]!r} means {cells[0].replace('.', '')}?"
            return [Doubt(DECIMAL_COMMA, question, ("yes", "no"))]
    return []


def _has_decimal_comma(cells: list[str]) -> bool:
    fractions = [match[1] for cell in cells if (match := _COMMA_NUMBER.fullmatch(cell))]
    return any(len(digits) != _THOUSANDS for digits in fractions)


def _has_decimal_point(cells: list[str]) -> bool:
    return any(_POINT_NUMBER.fullmatch(cell) and not _POINT_THOUSANDS.fullmatch(cell) for cell in cells)


def _all_match(pattern: re.Pattern[str], cells: list[str]) -> bool:
    return bool(cells) and all(pattern.fullmatch(cell) for cell in cells)


def _find_cells_of_place(places: Mapping[str, str], samples: Mapping[str, list[str]], place: str) -> list[str]:
    return next((samples[column] for column, place_of_column in places.items() if place_of_column == place), [])
