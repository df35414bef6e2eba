"""The words that rules are made of: keys, names, lengths, moments, and the schema that each publishes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final

from pydantic import Field, PlainValidator, StringConstraints, TypeAdapter, ValidationError, WithJsonSchema

from app.rules import lengths
from app.rules.refusal import refuse

COUNT_MAX: Final = 1_000_000
EVENT_CHARS_MAX: Final = 200
KEY_PATTERN: Final = r"^[a-z0-9]+(?:[_-][a-z0-9]+)*$"
_CHANNEL_PATTERN: Final = r"^[a-z][a-z0-9_]*$"


def _words(accept: Callable[[Any], str]) -> PlainValidator:
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

    return PlainValidator(check)


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
Keys = Annotated[str | list[str], _words(_key), _words_schema("A key or a list of keys.", 64, KEY_PATTERN)]
Events = Annotated[
    str | list[str],
    _words(_text("an event name", EVENT_CHARS_MAX)),
    _words_schema('An event name, a list of names, or "*" for any. Exact and case-sensitive.', EVENT_CHARS_MAX),
]
Channels = Annotated[
    str | list[str],
    _words(_text("a channel", 50, _CHANNEL_PATTERN, "Channels are lower_snake, such as email or in_store.")),
    _words_schema("A channel or a list of channels.", 50, _CHANNEL_PATTERN),
]
Sources = Annotated[
    str | list[str], _words(_text("a source", 255)), _words_schema("The key of a source, or a list of keys.", 255)
]
Path = Annotated[
    str, PlainValidator(_text("a name", 500)), WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 500})
]


def _length(value: Any) -> str:
    if not isinstance(value, str):
        raise refuse("a length is text", 'Write a whole number and a unit in quotes, such as "90d".')
    try:
        lengths.length(value)
    except lengths.NotYet as error:
        raise refuse(str(error), "Use days or weeks, such as 30d; a day is 24 hours.") from None
    except ValueError as error:
        raise refuse(str(error), 'Write for instance "90d", "2w" or "36h"; the longest is 100 years.') from None
    return value


def _moment(value: Any) -> str:
    if not isinstance(value, str):
        raise refuse("a moment is text", 'Write for instance "1997-10-01" or "1997-10-01T00:00:00Z".')
    try:
        lengths.moment(value)
    except ValueError as error:
        raise refuse(str(error), 'Write for instance "1997-10-01" or "1997-10-01T00:00:00Z".') from None
    return value


def _zone(value: Any) -> str:
    if not lengths.is_zone(value):
        raise refuse("there is no such timezone", "Use a name of the IANA database, such as Europe/Lisbon.")
    return str(value)


Length = Annotated[
    str,
    PlainValidator(_length),
    WithJsonSchema({"type": "string", "pattern": "^[1-9][0-9]*(ms|s|m|h|d|w)$", "examples": ["90d"]}),
]
Moment = Annotated[
    str, PlainValidator(_moment), WithJsonSchema({"type": "string", "examples": ["1997-10-01", "1997-10-01T00:00:00Z"]})
]
Zone = Annotated[str, PlainValidator(_zone), WithJsonSchema({"type": "string", "examples": ["Europe/Lisbon"]})]
Count = Annotated[int, Field(ge=0, le=COUNT_MAX)]
