"""CMP: how a value is compared with what a rule says, written and compiled.

A missing value is ``None``, because null is missing. Every negative operator is the exact complement of its
positive one, also for missing values.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema, model_validator

from app.rules.numbers import Number, as_number
from app.rules.refusal import refuse, refuse_later

Test = Callable[[Any], bool]
"""Takes the value read, ``None`` where it is missing."""

SCALAR_SCHEMA: Final[dict[str, Any]] = {
    "anyOf": [{"type": "string"}, {"type": "number"}, {"type": "boolean"}],
    "description": 'Text, a number or a boolean. 1 equals 1.0; "1" does not equal 1.',
}
_FLAG_SCHEMA: Final[dict[str, Any]] = {"type": "boolean", "description": "Always true; leave it out otherwise."}


def _scalar(value: Any) -> str | int | Decimal | bool:
    if isinstance(value, float):
        return Decimal(repr(value))
    if isinstance(value, str | int | Decimal):
        return value
    if isinstance(value, dict):
        raise refuse_later("an operand that is an object (another trait, a value expression)", "Give a plain value.")
    raise refuse("an operand is text, a number or a boolean", "To compare with several values, use in.")


def _sortable(value: Any) -> str | int | Decimal:
    scalar = _scalar(value)
    if isinstance(scalar, bool):
        raise refuse("true and false have no order", "Compare with eq or ne.")
    return scalar


def _values(value: Any) -> list[str | int | Decimal | bool]:
    if not isinstance(value, list):
        raise refuse("it must be a list", "Put the values in [ ], or use eq for one value.")
    if not value:
        raise refuse("the list is empty", "Give at least one value.")
    found = [_scalar(item) for item in value]
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
Flag = Annotated[bool, PlainValidator(_flag), WithJsonSchema(_FLAG_SCHEMA)]

_POSITIVE_ALONE: Final = ("eq", "in_")
_NEGATIVE: Final = ("ne", "not_in", "not_contains")
_RANGES: Final = ("gt", "gte", "lt", "lte", "between")
_ORDERS: Final = {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}


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
    )

    eq: Scalar | None = Field(None, description="Equal, of the same type.")
    ne: Scalar | None = Field(None, description="Not equal, or missing.")
    gt: Sortable | None = Field(None, description="Greater; text that is a number counts as that number.")
    gte: Sortable | None = Field(None, description="Greater or equal.")
    lt: Sortable | None = Field(None, description="Less.")
    lte: Sortable | None = Field(None, description="Less or equal.")
    between: Bounds | None = Field(None, description="From the first to the second, both inside.")
    in_: Values | None = Field(None, alias="in", description="Equal to one of them.")
    not_in: Values | None = Field(None, description="Equal to none of them, or missing.")
    contains: Element | None = Field(None, description="An array has this element, or a text has this part.")
    not_contains: Element | None = Field(None, description="The complement of contains.")
    starts_with: Part | None = Field(None, description="The text begins so.")
    ends_with: Part | None = Field(None, description="The text ends so.")
    exists: bool | None = Field(None, description="Whether there is a value; null is none.")
    ignore_case: Flag | None = Field(None, description="Compare text without regard to case.")

    @property
    def operators(self) -> list[str]:
        """The operators that were given, as field names, in the order of the table above."""
        return [name for name in Comparison.model_fields if name != "ignore_case" and getattr(self, name) is not None]

    @model_validator(mode="after")
    def _make_sense_together(self) -> Self:
        given = self.operators
        if not given:
            raise refuse("the comparison has no operator", "Add one, such as eq, gt or exists.")
        _refuse_idle_operators(given, self)
        if self.ignore_case and not any(_is_text_operand(name, getattr(self, name)) for name in given):
            raise refuse("ignore_case has no text to apply to", "Remove it.", "ignore_case")
        return self


def _refuse_idle_operators(given: list[str], asked: Comparison) -> None:
    def at(name: str) -> str:
        return "in" if name == "in_" else name

    alone = next((name for name in _POSITIVE_ALONE if name in given), None)
    if alone is not None and len(given) > 1:
        other = next(name for name in given if name != alone)
        raise refuse(f"beside {at(alone)} it says nothing more, or contradicts it", "Keep one of them.", at(other))
    if "exists" in given:
        for name in given:
            if name != "exists" and (asked.exists is False or name not in _NEGATIVE):
                raise refuse(f"beside {name} it says nothing more, or contradicts it", "Remove it.", "exists")
    if "ne" in given and "not_in" in given:
        raise refuse("ne belongs into the list of not_in", "Move it there.", "ne")
    bounds = [name for name in _RANGES if name in given]
    for one, other in (("gt", "gte"), ("lt", "lte")):
        if one in bounds and other in bounds:
            raise refuse(f"beside {one} it says nothing more", "Keep one of them.", other)
    if "between" in bounds and len(bounds) > 1:
        raise refuse("between has both bounds already", "Keep between, or the single bounds.", bounds[0])
    lower = next((name for name in ("gt", "gte") if name in bounds), None)
    upper = next((name for name in ("lt", "lte") if name in bounds), None)
    if lower and upper:
        _refuse_empty_range(lower, upper, asked)


def _refuse_empty_range(lower: str, upper: str, asked: Comparison) -> None:
    fold = bool(asked.ignore_case)
    low, high = _order_key(getattr(asked, lower), fold), _order_key(getattr(asked, upper), fold)
    if isinstance(low, str) != isinstance(high, str):
        raise refuse("a number and a text have no order", "Give two numbers or two texts.", upper)
    empty = low > high or (low == high and (lower, upper) != ("gte", "lte"))  # type: ignore[operator]
    if empty:
        raise refuse(f"nothing lies above {lower} and below {upper}", "Swap or correct the bounds.", upper)


def _is_text_operand(name: str, operand: Any) -> bool:
    if name in _RANGES:
        bounds = operand if isinstance(operand, list) else [operand]
        return any(isinstance(_order_key(bound, fold=False), str) for bound in bounds)
    if name in ("in_", "not_in"):
        return any(isinstance(item, str) for item in operand)
    return isinstance(operand, str)


# ---------------------------------------------------------------------------------------------- meaning


def compile_comparison(asked: Comparison) -> Test:
    """One function for all the operators of ``asked``."""
    tests = [_test(name, getattr(asked, name), fold=bool(asked.ignore_case)) for name in asked.operators]
    if len(tests) == 1:
        return tests[0]
    return lambda value: all(test(value) for test in tests)


def _test(name: str, operand: Any, *, fold: bool) -> Test:
    match name:
        case "eq":
            return _equals(operand, fold=fold)
        case "ne":
            return _not(_equals(operand, fold=fold))
        case "in_":
            return _is_one_of(operand, fold=fold)
        case "not_in":
            return _not(_is_one_of(operand, fold=fold))
        case "contains":
            return _contains(operand, fold=fold)
        case "not_contains":
            return _not(_contains(operand, fold=fold))
        case "starts_with":
            return _on_text(str.startswith, operand, fold=fold)
        case "ends_with":
            return _on_text(str.endswith, operand, fold=fold)
        case "exists":
            return (lambda value: value is not None) if operand else (lambda value: value is None)
        case "between":
            above = _ordered(operator.ge, operand[0], fold=fold)
            below = _ordered(operator.le, operand[1], fold=fold)
            return lambda value: above(value) and below(value)
        case _:
            return _ordered(_ORDERS[name], operand, fold=fold)


def _not(test: Test) -> Test:
    return lambda value: not test(value)


def _equals(operand: str | Number | bool, *, fold: bool) -> Test:
    if isinstance(operand, bool):
        return lambda value: value is operand
    if not isinstance(operand, str):
        return lambda value: value == operand and type(value) is not bool
    if not fold:
        return lambda value: bool(value == operand)
    folded = operand.casefold()
    return lambda value: isinstance(value, str) and value.casefold() == folded


def _is_one_of(operands: Sequence[str | Number | bool], *, fold: bool) -> Test:
    flags = frozenset(item for item in operands if isinstance(item, bool))
    others = frozenset(
        item.casefold() if fold and isinstance(item, str) else item for item in operands if not isinstance(item, bool)
    )

    def test(value: Any) -> bool:
        if type(value) is str:
            return (value.casefold() if fold else value) in others
        if type(value) is bool:
            return value in flags
        return isinstance(value, int | Decimal) and value in others

    return test


def _contains(operand: str | Number | bool, *, fold: bool) -> Test:
    is_element = _equals(operand, fold=fold)
    is_part = _on_text(str.__contains__, operand, fold=fold) if isinstance(operand, str) else None

    def test(value: Any) -> bool:
        if isinstance(value, list):
            return any(is_element(item) for item in value)
        return is_part is not None and is_part(value)

    return test


def _on_text(question: Callable[[str, str], bool], operand: str, *, fold: bool) -> Test:
    if not fold:
        return lambda value: isinstance(value, str) and question(value, operand)
    folded = operand.casefold()
    return lambda value: isinstance(value, str) and question(value.casefold(), folded)


def _order_key(value: str | Number, fold: bool) -> str | Number:
    number = as_number(value)
    if number is not None:
        return number
    return str(value).casefold() if fold else str(value)


def _ordered(compare: Callable[[Any, Any], bool], operand: str | Number, *, fold: bool) -> Test:
    key = _order_key(operand, fold)
    if not isinstance(key, str):

        def test_number(value: Any) -> bool:
            number = as_number(value)
            return number is not None and compare(number, key)

        return test_number

    def test_text(value: Any) -> bool:
        return isinstance(value, str) and as_number(value) is None and compare(value.casefold() if fold else value, key)

    return test_text
