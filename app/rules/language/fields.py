"""The words that rules are made of: keys, names, lengths, moments, and the schema that each publishes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import date
from typing import Annotated, Any, Final

from pydantic import Field, PlainValidator, StringConstraints, TypeAdapter, ValidationError, WithJsonSchema

from app.rules.engine import calendar
from app.rules.language import durations
from app.rules.language.validation import near, refuse

COUNT_MAX: Final = 1_000_000
EVENT_CHARS_MAX: Final = 200
PATTERN_CHARS_MAX: Final = 500
PERIODS: Final = {"day": 366, "week": 104, "month": 60}
"""Periods of ``regularly``, and how many of each may be asked of at most."""
DURING: Final = {
    "today": 2,
    "yesterday": 3,
    "this_week": 9,
    "last_week": 16,
    "this_month": 33,
    "last_month": 64,
    "this_year": 368,
    "last_year": 734,
    "weekend": None,
}
"""Words of ``during``, with an age in days that no touchpoint inside reaches, whatever the clocks do."""
KEY_PATTERN: Final = r"^[a-z0-9]+(?:[_-][a-z0-9]+)*$"
_CHANNEL_PATTERN: Final = r"^[a-z][a-z0-9_]*$"


def _words(accept: Callable[[Any], str]) -> Callable[[Any], str | list[str]]:
    """A word, or a list of different words."""

    def check(value: Any) -> str | list[str]:
        if not isinstance(value, list):
            return accept(value)
        if not value:
            raise refuse("the list is empty", "Give at least one item.")
        found: list[str] = []
        for index, item in enumerate(value):
            try:
                found.append(accept(item))
            except Exception as error:
                raise _moved(error, index) from None
        if len(set(found)) < len(found):
            twice = next(index for index, item in enumerate(found) if item in found[:index])
            raise refuse("it stands twice in the list", "Remove one of them.", twice)
        return found

    return check


def _moved(error: Exception, index: int) -> Exception:
    context = getattr(error, "context", None)
    return refuse(context["message"], context["remedy"], index, *context["at"]) if context else error


def _text(what: str, longest: int, pattern: str | None = None, remedy: str = "") -> Callable[[Any], str]:
    adapter = TypeAdapter(Annotated[str, StringConstraints(pattern=pattern)])

    def accept(value: Any) -> str:
        if not isinstance(value, str):
            raise refuse(f"{what} is text", "Put it in quotes.")
        if not 1 <= len(value) <= longest:
            raise refuse(f"{what} has 1 to {longest} characters", "Shorten or complete it.")
        try:
            adapter.validate_python(value)
        except ValidationError:
            raise refuse(f"{what} cannot be written so", remedy) from None
        return value

    return accept


def _words_schema(description: str, longest: int, pattern: str | None = None) -> WithJsonSchema:
    word: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": longest}
    if pattern:
        word["pattern"] = pattern
    several = {"type": "array", "items": word, "minItems": 1, "uniqueItems": True}
    return WithJsonSchema({"anyOf": [word, several], "description": description})


_KEY_REMEDY: Final = "Use 1 to 64 lower-case letters and digits, parted by single _ or -."
_key: Final = _text("a key", 64, KEY_PATTERN, _KEY_REMEDY)

Key = Annotated[
    str,
    PlainValidator(_key),
    WithJsonSchema({"type": "string", "pattern": KEY_PATTERN, "minLength": 1, "maxLength": 64}),
]
Keys = Annotated[
    str | list[str], PlainValidator(_words(_key)), _words_schema("A key or a list of keys.", 64, KEY_PATTERN)
]
_event_words: Final = _words(_text("an event name", EVENT_CHARS_MAX))


def _events(value: Any) -> str | list[str]:
    found = _event_words(value)
    if isinstance(found, list) and "*" in found:
        raise refuse('"*" is any event already', 'Write "*" alone.')
    return found


Events = Annotated[
    str | list[str],
    PlainValidator(_events),
    _words_schema('An event name, a list of names, or "*" for any. Exact and case-sensitive.', EVENT_CHARS_MAX),
]
Channels = Annotated[
    str | list[str],
    PlainValidator(
        _words(_text("a channel", 50, _CHANNEL_PATTERN, "Channels are lower_snake, such as email or in_store."))
    ),
    _words_schema("A channel or a list of channels.", 50, _CHANNEL_PATTERN),
]
Sources = Annotated[
    str | list[str],
    PlainValidator(_words(_text("a source", 255))),
    _words_schema("The key of a source, or a list of keys.", 255),
]

_NAME_SCHEMA: Final = WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 500})
_TOUCHPOINT: Final = "touchpoint."
_TOUCHPOINT_PATHS: Final = ("touchpoint.name", "touchpoint.channel", "touchpoint.source")
_PRIVATE: Final = "context.private"
_path_text: Final = _text("a path", 500)


def _path(value: Any) -> str:
    path = _path_text(value)
    if path.startswith(_TOUCHPOINT) and path not in _TOUCHPOINT_PATHS:
        raise refuse("a touchpoint has no such part", f"Read {', '.join(_TOUCHPOINT_PATHS)}, or a property.")
    if path == _PRIVATE or path.startswith(_PRIVATE + "."):
        raise refuse(
            "what people wrote is kept apart, and no rule reads it",
            "Read a property; or let the source put texts there, by its option text: property.",
        )
    return path


def _paths(value: Any) -> list[str]:
    if not isinstance(value, list):
        raise refuse("it must be a list", "Put the paths in [ ].")
    if len(value) > 5:
        raise refuse("there are more than 5 paths", "Keep the ones that tell things apart.", 5)
    found = _words(_path)(value)
    assert isinstance(found, list)
    return found


TraitName = Annotated[str, PlainValidator(_text("a trait's name", 500)), _NAME_SCHEMA]
Path = Annotated[str, PlainValidator(_path), _NAME_SCHEMA]
Paths = Annotated[
    list[str],
    PlainValidator(_paths),
    WithJsonSchema(
        {
            "type": "array",
            "items": {"type": "string", "minLength": 1, "maxLength": 500},
            "minItems": 1,
            "maxItems": 5,
            "uniqueItems": True,
        }
    ),
]


def _length(value: Any) -> str:
    if not isinstance(value, str):
        raise refuse("a length is text", 'Write a whole number and a unit in quotes, such as "90d".')
    try:
        calendar.length(value)
    except ValueError as error:
        raise refuse(str(error), 'Write for instance "90d", "36h" or "3mo"; the longest is 100 years.') from None
    return value


def _moment(value: Any) -> str:
    if not isinstance(value, str):
        raise refuse("a moment is text", 'Write for instance "1997-10-01" or "1997-10-01T00:00:00Z".')
    try:
        durations.moment(value)
    except ValueError as error:
        raise refuse(str(error), 'Write for instance "1997-10-01" or "1997-10-01T00:00:00Z".') from None
    return value


def _zone(value: Any) -> str:
    if not durations.is_zone(value):
        raise refuse("there is no such timezone", "Use a name of the IANA database, such as Europe/Lisbon.")
    return str(value)


def _one_of(what: str, words: Iterable[str]) -> PlainValidator:
    known = tuple(words)

    def check(value: Any) -> str:
        if not isinstance(value, str) or value not in known:
            raise refuse(f"there is no such {what}", near(value, known) or f"Use one of {', '.join(known)}.")
        return value

    return PlainValidator(check)


Length = Annotated[
    str,
    PlainValidator(_length),
    WithJsonSchema({"type": "string", "pattern": "^[1-9][0-9]*(ms|s|m|h|d|w|mo|y)$", "examples": ["90d", "3mo"]}),
]
Moment = Annotated[
    str, PlainValidator(_moment), WithJsonSchema({"type": "string", "examples": ["1997-10-01", "1997-10-01T00:00:00Z"]})
]
Zone = Annotated[str, PlainValidator(_zone), WithJsonSchema({"type": "string", "examples": ["Europe/Lisbon"]})]
Period = Annotated[str, _one_of("period", PERIODS), WithJsonSchema({"type": "string", "enum": list(PERIODS)})]
DuringWord = Annotated[str, _one_of("word of during", DURING), WithJsonSchema({"type": "string", "enum": list(DURING)})]
Count = Annotated[int, Field(ge=0, le=COUNT_MAX)]


# --------------------------------------------------------------------------------- what surely follows of them


def is_calendar(length: str | None) -> bool:
    """Whether the length is one of months or years, so that its end depends on the timezone."""
    return length is not None and calendar.length(length).months > 0


def never_longer(one: str, other: str) -> bool:
    """Whether ``one`` ends no later than ``other``, whenever and wherever both begin."""
    first, second = calendar.length(one), calendar.length(other)
    if first.months and second.months:
        return first.months <= second.months
    return _extent(first)[1] <= _extent(second)[0]


def lasts_days(length: str, days: int) -> bool:
    """Whether the length is surely at least so many days of 24 hours."""
    return _extent(calendar.length(length))[0] >= days * durations.MICROSECONDS["d"]


def _extent(length: calendar.Length) -> tuple[int, int]:
    """(shortest, longest) microseconds that the length can take; a change of offset moves an end by a day at most."""
    if not length.months:
        return length.microseconds, length.microseconds
    years, months = divmod(length.months, 12)
    day = durations.MICROSECONDS["d"]
    return (years * 365 + months * 28 - 2) * day, (years * 366 + months * 31 + 2) * day


def earliest_and_latest(bound: int | date, zone: str | None) -> tuple[int, int]:
    """Between which instants a moment lies; a date begins somewhere, where no zone says where."""
    if not isinstance(bound, date):
        return bound, bound
    if zone is not None:
        first = durations.first_instant(bound, zone)
        return first, first
    midnight = durations.utc_midnight(bound)
    return midnight - durations.EDGE, midnight + durations.EDGE


def not_before(one: str, other: str, zone: str | None = None) -> bool:
    """Whether the moment ``one`` is surely the same as ``other``, or later, in whatever zone their dates begin."""
    first, second = durations.moment(one), durations.moment(other)
    if isinstance(first, date) and isinstance(second, date):
        return first >= second
    return earliest_and_latest(first, zone)[0] >= earliest_and_latest(second, zone)[1]
