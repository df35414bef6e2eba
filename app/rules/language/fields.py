"""Field types of rules (keys, names, lengths, moments, timezones), each with its validator and its JSON schema."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import date
from typing import Annotated, Any, Final

from pydantic import Field, PlainValidator, StringConstraints, TypeAdapter, ValidationError, WithJsonSchema

from app.rules.language.validation import quote_all, suggest_similar, validation_error
from app.rules.values import calendar, durations

COUNT_MAX: Final = 1_000_000
EVENT_CHARS_MAX: Final = 200
PATTERN_CHARS_MAX: Final = 500
PERIODS_MAX: Final = {"day": 366, "week": 104, "month": 60}
"""``period`` of a ``regularly`` node -> maximum value of ``of_last``."""
DURING_AGE_DAYS_MAX: Final = {
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
"""Value of ``during`` -> age in days of 24 hours that no touchpoint in that period reaches, in any timezone. ``None``
means that a touchpoint can have any age."""
KEY_PATTERN: Final = r"^[a-z0-9]+(?:[_-][a-z0-9]+)*$"
_CHANNEL_PATTERN: Final = r"^[a-z][a-z0-9_]*$"


def _one_or_several_validator(accept: Callable[[Any], str]) -> Callable[[Any], str | list[str]]:
    """Return a validator of one text or a list of distinct texts; ``accept`` validates one text."""

    def check(value: Any) -> str | list[str]:
        if not isinstance(value, list):
            return accept(value)
        if not value:
            raise validation_error("the list is empty", "Give at least one item.")
        items: list[str] = []
        for index, item in enumerate(value):
            try:
                items.append(accept(item))
            except Exception as error:  # noqa: BLE001 - the error is raised again, with the index of the item
                raise _prefixed_with_index(error, index) from None
        if len(set(items)) < len(items):
            repeated = next(index for index, item in enumerate(items) if item in items[:index])
            raise validation_error("the list contains this item twice", "Remove one of them.", repeated)
        return items

    return check


def _prefixed_with_index(error: Exception, index: int) -> Exception:
    context = getattr(error, "context", None)
    return validation_error(context["message"], context["remedy"], index, *context["at"]) if context else error


def _text_validator(what: str, longest: int, pattern: str | None = None, remedy: str = "") -> Callable[[Any], str]:
    adapter = TypeAdapter(Annotated[str, StringConstraints(pattern=pattern)])

    def accept(value: Any) -> str:
        if not isinstance(value, str):
            raise validation_error(f"{what} must be text", "Put it in quotes.")
        if not 1 <= len(value) <= longest:
            raise validation_error(f"{what} must have 1 to {longest} characters", "Shorten it, or fill it in.")
        try:
            adapter.validate_python(value)
        except ValidationError:
            raise validation_error(f"{what} contains characters that are not allowed", remedy) from None
        return value

    return accept


def _one_or_several_schema(description: str, longest: int, pattern: str | None = None) -> WithJsonSchema:
    word: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": longest}
    if pattern:
        word["pattern"] = pattern
    several = {"type": "array", "items": word, "minItems": 1, "uniqueItems": True}
    return WithJsonSchema({"anyOf": [word, several], "description": description})


_KEY_REMEDY: Final = "Use 1 to 64 lower-case letters and digits, separated by single `_` or `-`."
_check_key: Final = _text_validator("a key", 64, KEY_PATTERN, _KEY_REMEDY)

Key = Annotated[
    str,
    PlainValidator(_check_key),
    WithJsonSchema({"type": "string", "pattern": KEY_PATTERN, "minLength": 1, "maxLength": 64}),
]
Keys = Annotated[
    str | list[str],
    PlainValidator(_one_or_several_validator(_check_key)),
    _one_or_several_schema("A key or a list of keys.", 64, KEY_PATTERN),
]
_check_event_names: Final = _one_or_several_validator(_text_validator("an event name", EVENT_CHARS_MAX))


def _check_events(value: Any) -> str | list[str]:
    names = _check_event_names(value)
    if isinstance(names, list) and "*" in names:
        raise validation_error('"*" already matches every event', 'Write "*" alone.')
    return names


Events = Annotated[
    str | list[str],
    PlainValidator(_check_events),
    _one_or_several_schema(
        'An event name, a list of names, or "*" for every event. Names must match exactly, with the same case.',
        EVENT_CHARS_MAX,
    ),
]
Channels = Annotated[
    str | list[str],
    PlainValidator(
        _one_or_several_validator(
            _text_validator(
                "a channel",
                50,
                _CHANNEL_PATTERN,
                "Write it in lower case with underscores, such as `email` or `in_store`.",
            )
        )
    ),
    _one_or_several_schema("A channel or a list of channels.", 50, _CHANNEL_PATTERN),
]
Sources = Annotated[
    str | list[str],
    PlainValidator(_one_or_several_validator(_text_validator("a source", 255))),
    _one_or_several_schema("The key of a source, or a list of keys.", 255),
]

_NAME_SCHEMA: Final = WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 500})
_TOUCHPOINT: Final = "touchpoint."
_TOUCHPOINT_PATHS: Final = ("touchpoint.name", "touchpoint.channel", "touchpoint.source")
_PRIVATE_TEXT: Final = "context.private"
_check_path_text: Final = _text_validator("a path", 500)


def _check_path(value: Any) -> str:
    path = _check_path_text(value)
    if path.startswith(_TOUCHPOINT) and path not in _TOUCHPOINT_PATHS:
        raise validation_error(
            "this field of a touchpoint does not exist",
            f"Use {quote_all(_TOUCHPOINT_PATHS)}, or the path of a property.",
        )
    if path == _PRIVATE_TEXT or path.startswith(_PRIVATE_TEXT + "."):
        raise validation_error(
            "rules cannot read the private texts that customers wrote",
            "Use a property. To store texts in a property, set the source's option `text` to `property`.",
        )
    return path


def _check_paths(value: Any) -> list[str]:
    if not isinstance(value, list):
        raise validation_error("the value must be a list", "Put the paths in [ ].")
    if len(value) > 5:
        raise validation_error("the list has more than 5 paths", "Remove paths.", 5)
    paths = _one_or_several_validator(_check_path)(value)
    assert isinstance(paths, list)
    return paths


TraitName = Annotated[str, PlainValidator(_text_validator("a trait's name", 500)), _NAME_SCHEMA]
Path = Annotated[str, PlainValidator(_check_path), _NAME_SCHEMA]
Paths = Annotated[
    list[str],
    PlainValidator(_check_paths),
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


def _check_length(value: Any) -> str:
    if not isinstance(value, str):
        raise validation_error("a length must be text", 'Write a whole number and a unit in quotes, such as "90d".')
    try:
        calendar.parse_length(value)
    except ValueError as error:
        raise validation_error(
            str(error), 'Write for example "90d", "36h" or "3mo"; the longest length is 100 years.'
        ) from None
    return value


def _check_moment(value: Any) -> str:
    if not isinstance(value, str):
        raise validation_error(
            "an instant or date must be text", 'Write for example "1997-10-01" or "1997-10-01T00:00:00Z".'
        )
    try:
        durations.parse_moment(value)
    except ValueError as error:
        raise validation_error(str(error), 'Write for example "1997-10-01" or "1997-10-01T00:00:00Z".') from None
    return value


def _check_timezone(value: Any) -> str:
    if not durations.is_timezone(value):
        raise validation_error(
            "the timezone does not exist", "Use a name from the IANA database, such as Europe/Lisbon."
        )
    return str(value)


def _choice_validator(what: str, words: Iterable[str]) -> PlainValidator:
    choices = tuple(words)

    def check(value: Any) -> str:
        if not isinstance(value, str) or value not in choices:
            raise validation_error(
                f"{what} has a value that is not allowed",
                suggest_similar(value, choices) or f"Use one of {quote_all(choices)}.",
            )
        return value

    return PlainValidator(check)


Length = Annotated[
    str,
    PlainValidator(_check_length),
    WithJsonSchema({"type": "string", "pattern": "^[1-9][0-9]*(ms|s|m|h|d|w|mo|y)$", "examples": ["90d", "3mo"]}),
]
Moment = Annotated[
    str,
    PlainValidator(_check_moment),
    WithJsonSchema({"type": "string", "examples": ["1997-10-01", "1997-10-01T00:00:00Z"]}),
]
Timezone = Annotated[
    str, PlainValidator(_check_timezone), WithJsonSchema({"type": "string", "examples": ["Europe/Lisbon"]})
]
Period = Annotated[
    str, _choice_validator("`period`", PERIODS_MAX), WithJsonSchema({"type": "string", "enum": list(PERIODS_MAX)})
]
DuringWord = Annotated[
    str,
    _choice_validator("`during`", DURING_AGE_DAYS_MAX),
    WithJsonSchema({"type": "string", "enum": list(DURING_AGE_DAYS_MAX)}),
]
Count = Annotated[int, Field(ge=0, le=COUNT_MAX)]


# ------------------------------------------------------------------------- comparisons of lengths and moments


def is_calendar_length(length: str | None) -> bool:
    """Return whether the length is in months or years, so that its end depends on the timezone."""
    return length is not None and calendar.parse_length(length).months > 0


def is_never_longer(length: str, limit: str) -> bool:
    """Return whether ``length`` is at most as long as ``limit``, for every start and in every timezone."""
    first, second = calendar.parse_length(length), calendar.parse_length(limit)
    if first.months and second.months:
        return first.months <= second.months
    return _length_bounds(first)[1] <= _length_bounds(second)[0]


def lasts_at_least_days(length: str, days: int) -> bool:
    """Return whether the length always lasts at least ``days`` days of 24 hours.

    The duration of a month depends on its start and on the timezone. The result is true only if the shortest possible
    duration is long enough.
    """
    return _length_bounds(calendar.parse_length(length))[0] >= days * durations.MICROSECONDS["d"]


def _length_bounds(length: calendar.Length) -> tuple[int, int]:
    """Return the shortest and longest duration of the length in microseconds.

    A month has 28 to 31 days. A change of the UTC offset moves each end by at most one day, so each bound allows 2 more
    days.
    """
    if not length.months:
        return length.microseconds, length.microseconds
    years, months = divmod(length.months, 12)
    day = durations.MICROSECONDS["d"]
    return (years * 365 + months * 28 - 2) * day, (years * 366 + months * 31 + 2) * day


def moment_bounds(bound: int | date, zone: str | None) -> tuple[int, int]:
    """Return the earliest and latest instant at which the moment can be.

    They differ only for a date without a timezone, because it begins at different instants in different timezones.
    """
    if not isinstance(bound, date):
        return bound, bound
    if zone is not None:
        first = durations.first_instant_of_day(bound, zone)
        return first, first
    midnight = durations.utc_midnight_of(bound)
    return midnight - durations.ZONE_SHIFT_MAX, midnight + durations.ZONE_SHIFT_MAX


def is_not_before(moment: str, limit: str, zone: str | None = None) -> bool:
    """Return whether ``moment`` equals ``limit`` or is later.

    Dates begin in ``zone``. If it is ``None``, the result is true only if it is true in every timezone.
    """
    first, second = durations.parse_moment(moment), durations.parse_moment(limit)
    if isinstance(first, date) and isinstance(second, date):
        return first >= second
    return moment_bounds(first, zone)[0] >= moment_bounds(second, zone)[1]
