"""CMP: how a value is compared with what a rule says, as written; :mod:`app.rules.engine.operators` has the meaning.

An operand is a plain value, or a *reading*: another trait, or a value expression. Readings may hold comparisons in
turn, so their models stand in :mod:`app.rules.language.expressions`, which completes the one of this module.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Final, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PlainValidator,
    Tag,
    WithJsonSchema,
    model_validator,
)

from app.rules.engine.decimals import Number, as_number
from app.rules.engine.operators import check_pattern
from app.rules.language.fields import PATTERN_CHARS_MAX, Length, Moment, not_before
from app.rules.language.validation import refuse

if TYPE_CHECKING:
    from app.rules.language.expressions import Reading

SCALAR_SCHEMA: Final[dict[str, Any]] = {
    "anyOf": [{"type": "string"}, {"type": "number"}, {"type": "boolean"}],
    "description": 'Text, a number or a boolean. 1 equals 1.0; "1" does not equal 1.',
}
_FLAG_SCHEMA: Final[dict[str, Any]] = {"type": "boolean", "const": True, "description": "Leave it out otherwise."}


def _scalar(value: Any) -> str | int | Decimal | bool:
    if isinstance(value, float):
        return Decimal(repr(value))
    if isinstance(value, str | int | Decimal):
        return value
    raise refuse("an operand is text, a number or a boolean", "To compare with several values, use in.")


def _sortable(value: Any) -> str | int | Decimal:
    scalar = _scalar(value)
    if isinstance(scalar, bool):
        raise refuse("true and false have no order", "Compare with eq or ne.")
    return scalar


def _plain(value: Any, index: int) -> str | int | Decimal | bool:
    """An item of a list, which is a plain value always."""
    if isinstance(value, dict):
        raise refuse(
            "a list holds plain values only", "For traits and expressions write one eq for each, under any.", index
        )
    if isinstance(value, list):
        raise refuse("a list holds plain values only", "Put the items into the outer list.", index)
    return _scalar(value)


def _values(value: Any) -> list[str | int | Decimal | bool]:
    if not isinstance(value, list):
        raise refuse("it must be a list", "Put the values in [ ], or use eq for one value.")
    if not value:
        raise refuse("the list is empty", "Give at least one value.")
    found = [_plain(item, index) for index, item in enumerate(value)]
    seen: set[tuple[bool, str | int | Decimal]] = set()
    for index, item in enumerate(found):
        key = (isinstance(item, bool), item)
        if key in seen:
            raise refuse("the value stands twice in the list", "Remove one of them.", index)
        seen.add(key)
    return found


def _bounds(value: Any) -> list[str | int | Decimal]:
    if not isinstance(value, list) or len(value) != 2:
        raise refuse("it must be a list of two bounds", "Write [lowest, highest]; both are inside.")
    for index, bound in enumerate(value):
        if isinstance(bound, dict):
            raise refuse("between takes plain bounds only", "Use gte and lte instead.", index)
    low, high = (_sortable(item) for item in value)
    low_key, high_key = _order_key(low, fold=False), _order_key(high, fold=False)
    if isinstance(low_key, str) != isinstance(high_key, str):
        raise refuse("a number and a text have no order", "Give two numbers or two texts.")
    if low_key > high_key:  # type: ignore[operator]
        raise refuse("the lower bound is above the upper one", "Write [lowest, highest].")
    return [low, high]


def _part(value: Any) -> str:
    if not isinstance(value, str):
        raise refuse("it must be text", "Put it in quotes.")
    if not value:
        raise refuse("every text has the empty one in it", "Use exists: true.")
    return value


def _element(value: Any) -> str | int | Decimal | bool:
    scalar = _scalar(value)
    return _part(scalar) if isinstance(scalar, str) else scalar


def _pattern(value: Any) -> str:
    if isinstance(value, dict):
        raise refuse("matches takes a plain pattern only", "Write the pattern as text, or use contains.")
    pattern = _part(value)
    if len(pattern) > PATTERN_CHARS_MAX:
        raise refuse(f"the pattern is longer than {PATTERN_CHARS_MAX} characters", "Shorten it.")
    wrong = check_pattern(pattern)
    if wrong is not None:
        raise refuse(f"the pattern cannot be read: {wrong}", "Write it in RE2 syntax: no look-around, no references.")
    return pattern


def _flag(value: Any) -> bool:
    if value is not True:
        raise refuse("it can only be true", "Write true, or leave it out.")
    return True


Scalar = Annotated[str | int | Decimal | bool, PlainValidator(_scalar), WithJsonSchema(SCALAR_SCHEMA)]
Sortable = Annotated[
    str | int | Decimal,
    PlainValidator(_sortable),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "number"}], "description": "A number or text."}),
]
Values = Annotated[
    list[str | int | Decimal | bool],
    PlainValidator(_values),
    WithJsonSchema({"type": "array", "items": SCALAR_SCHEMA, "minItems": 1, "uniqueItems": True}),
]
Bounds = Annotated[
    list[str | int | Decimal],
    PlainValidator(_bounds),
    WithJsonSchema(
        {
            "type": "array",
            "items": {"anyOf": [{"type": "string"}, {"type": "number"}]},
            "minItems": 2,
            "maxItems": 2,
            "description": "[lowest, highest], both inside.",
        }
    ),
]
Part = Annotated[str, PlainValidator(_part), WithJsonSchema({"type": "string", "minLength": 1})]
Element = Annotated[str | int | Decimal | bool, PlainValidator(_element), WithJsonSchema(SCALAR_SCHEMA)]
Pattern = Annotated[
    str,
    PlainValidator(_pattern),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": PATTERN_CHARS_MAX, "examples": ["^/blog/[0-9]+"]}),
]
Flag = Annotated[bool, PlainValidator(_flag), WithJsonSchema(_FLAG_SCHEMA)]


def _operand_kind(value: Any) -> str:
    return "reading" if isinstance(value, dict | BaseModel) else "plain"


_Plain = TypeVar("_Plain")
Operand = Annotated[
    Annotated[_Plain, Tag("plain")] | Annotated["Reading", Tag("reading")], Discriminator(_operand_kind)
]
"""A plain value of the type given, or a reading."""

_NEGATIVE: Final = ("ne", "not_in", "not_contains", "none_of")
_RANGES: Final = ("gt", "gte", "lt", "lte", "between")
_LISTS: Final = ("in_", "not_in", "any_of", "all_of", "none_of")
_DATES: Final = ("after", "before_date", "within_last", "within_next", "anniversary_within")
_OF_NOW: Final = ("within_last", "within_next", "anniversary_within")
"""Operators whose truth moves with the clock, so that they say something even beside ``eq``."""


def published_as(description: str, *examples: dict[str, Any]) -> ConfigDict:
    """The configuration of every model of the language: strict, closed, and documented in OpenAPI."""

    def finish(schema: dict[str, Any]) -> None:
        schema |= {"description": description, "examples": list(examples)}
        for name, field in schema.get("properties", {}).items():
            # A modifier is left out or given; null is refused, so it must not be offered.
            options = [option for option in field.get("anyOf", ()) if option != {"type": "null"}]
            if "default" in field and field["default"] is None:
                del field["default"]
                if len(options) == 1:
                    del field["anyOf"]
                    schema["properties"][name] = options[0] | field
                else:
                    field["anyOf"] = options

    return ConfigDict(strict=True, extra="forbid", json_schema_extra=finish)


class Comparison(BaseModel):
    """One or more operators; all of them must hold."""

    model_config = published_as(
        "One or more operators, all of which must hold.",
        {"gte": 50, "lt": 100},
        {"contains": "serum", "ignore_case": True},
        {"gt": {"avg": "total", "of": "Order Completed"}},
    )

    eq: Operand[Scalar] | None = Field(None, description="Equal, of the same type.")
    ne: Operand[Scalar] | None = Field(None, description="Not equal, or missing.")
    gt: Operand[Sortable] | None = Field(None, description="Greater; text that is a number counts as that number.")
    gte: Operand[Sortable] | None = Field(None, description="Greater or equal.")
    lt: Operand[Sortable] | None = Field(None, description="Less.")
    lte: Operand[Sortable] | None = Field(None, description="Less or equal.")
    between: Bounds | None = Field(None, description="From the first to the second, both inside.")
    in_: Values | None = Field(None, alias="in", description="Equal to one of them.")
    not_in: Values | None = Field(None, description="Equal to none of them, or missing.")
    contains: Operand[Element] | None = Field(None, description="An array has this element, or a text has this part.")
    not_contains: Operand[Element] | None = Field(None, description="The complement of contains.")
    starts_with: Operand[Part] | None = Field(None, description="The text begins so.")
    ends_with: Operand[Part] | None = Field(None, description="The text ends so.")
    matches: Pattern | None = Field(
        None, description="The text has a part of this pattern (RE2 syntax; ^ and $ anchor)."
    )
    exists: bool | None = Field(None, description="Whether there is a value; null is none.")
    any_of: Values | None = Field(None, description="An array has one of them; a single value counts as a list of one.")
    all_of: Values | None = Field(None, description="An array has all of them.")
    none_of: Values | None = Field(None, description="The complement of any_of.")
    after: Operand[Moment] | None = Field(None, description="A date later than this one.")
    before_date: Operand[Moment] | None = Field(None, description="A date earlier than this one.")
    within_last: Length | None = Field(None, description="A date in the past: date <= now < date + length.")
    within_next: Length | None = Field(None, description="A date to come: now < date <= now + length.")
    anniversary_within: Length | None = Field(
        None, description="A date whose next anniversary is at most this far, until that day ends."
    )
    ignore_case: Flag | None = Field(None, description="Compare text without regard to case.")

    @property
    def operators(self) -> list[str]:
        """The operators that were given, as field names, in the order of the table above."""
        return [name for name in Comparison.model_fields if name != "ignore_case" and getattr(self, name) is not None]

    @property
    def has_dates(self) -> bool:
        """Whether an operator reads dates, which begin in a timezone."""
        return any(getattr(self, name) is not None for name in _DATES)

    @model_validator(mode="after")
    def _operators_make_sense_together(self) -> Self:
        given = self.operators
        if not given and self._needs_operator():
            raise refuse("the comparison has no operator", "Add one, such as eq, gt or exists.")
        _refuse_idle_operators(given, self)
        _refuse_contradictory_dates(self)
        if self.ignore_case and not any(_is_text_operand(name, getattr(self, name)) for name in given):
            raise refuse("ignore_case has no text to apply to", "Remove it.", "ignore_case")
        return self

    def _needs_operator(self) -> bool:
        return True


def _refuse_idle_operators(given: list[str], asked: Comparison) -> None:
    # An operand that is read differs from customer to customer: beside another one it always says something.
    fixed = [name for name in given if not isinstance(getattr(asked, name), BaseModel)]
    _refuse_beside_equality([name for name in fixed if name not in _OF_NOW])
    if "exists" in given:
        for name in given:
            if name != "exists" and (asked.exists is False or name not in _NEGATIVE):
                raise refuse(f"beside {_key(name)} it says nothing more, or contradicts it", "Remove it.", "exists")
    if "ne" in fixed and "not_in" in fixed:
        raise refuse("ne belongs into the list of not_in", "Move it there.", "ne")
    bounds = [name for name in _RANGES if name in fixed]
    for one, other in (("gt", "gte"), ("lt", "lte")):
        if one in bounds and other in bounds:
            raise refuse(f"beside {one} it says nothing more", "Keep one of them.", other)
    if "between" in bounds and len(bounds) > 1:
        raise refuse("between has both bounds already", "Keep between, or the single bounds.", bounds[0])
    lower = next((name for name in ("gt", "gte") if name in bounds), None)
    upper = next((name for name in ("lt", "lte") if name in bounds), None)
    if lower and upper:
        _refuse_empty_range(lower, upper, asked)


def _refuse_beside_equality(given: list[str]) -> None:
    alone = next((name for name in ("eq", "in_") if name in given), None)
    if alone is not None and len(given) > 1:
        other = next(name for name in given if name != alone)
        raise refuse(f"beside {_key(alone)} it says nothing more, or contradicts it", "Keep one of them.", _key(other))


def _refuse_empty_range(lower: str, upper: str, asked: Comparison) -> None:
    fold = bool(asked.ignore_case)
    low, high = _order_key(getattr(asked, lower), fold), _order_key(getattr(asked, upper), fold)
    if isinstance(low, str) != isinstance(high, str):
        raise refuse("a number and a text have no order", "Give two numbers or two texts.", upper)
    empty = low > high or (low == high and (lower, upper) != ("gte", "lte"))  # type: ignore[operator]
    if empty:
        raise refuse(f"nothing lies above {lower} and below {upper}", "Swap or correct the bounds.", upper)


def _refuse_contradictory_dates(asked: Comparison) -> None:
    if asked.within_last is not None and asked.within_next is not None:
        raise refuse("no date is both past and to come", "Keep one, or put each in a node of its own.", "within_next")
    if (
        isinstance(asked.after, str)
        and isinstance(asked.before_date, str)
        and not_before(asked.after, asked.before_date)
    ):
        raise refuse("no date is after the one and before the other", "Make before_date later.", "before_date")


def _key(name: str) -> str:
    """A field's name as it is written."""
    return name.rstrip("_")


def _is_text_operand(name: str, operand: Any) -> bool:
    if name in _DATES:
        return False
    if isinstance(operand, BaseModel):
        return True  # what is read may be text
    if name in _RANGES:
        bounds = operand if isinstance(operand, list) else [operand]
        return any(isinstance(_order_key(bound, fold=False), str) for bound in bounds)
    if name in _LISTS:
        return any(isinstance(item, str) for item in operand)
    return isinstance(operand, str)


def _order_key(value: str | Number, fold: bool) -> str | Number:
    number = as_number(value)
    if number is not None:
        return number
    return str(value).casefold() if fold else str(value)
