"""Models of comparisons, such as ``{"gte": 50, "lt": 100}``; :mod:`app.rules.engine.operators` evaluates them.

An operand is a plain value, or a ``Reading``: a trait or a value expression, whose value differs between customers. A
value expression may itself contain comparisons. To break that cycle, this module refers to ``Reading`` only by name;
:mod:`app.rules.language.expressions` defines it and passes it to ``Comparison.model_rebuild``.
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

from app.rules.language.fields import PATTERN_CHARS_MAX, Length, Moment, is_not_before
from app.rules.language.validation import validation_error
from app.rules.values.decimals import Number, as_number
from app.rules.values.patterns import find_pattern_error

if TYPE_CHECKING:
    Reading = BaseModel

SCALAR_SCHEMA: Final[dict[str, Any]] = {
    "anyOf": [{"type": "string"}, {"type": "number"}, {"type": "boolean"}],
    "description": 'Text, a number or a boolean. 1 equals 1.0; "1" does not equal 1.',
}
_FLAG_SCHEMA: Final[dict[str, Any]] = {
    "type": "boolean",
    "const": True,
    "description": "Always true. Leave the key out otherwise.",
}


def _check_scalar(value: Any) -> str | int | Decimal | bool:
    if isinstance(value, float):
        return Decimal(repr(value))
    if isinstance(value, str | int | Decimal):
        return value
    raise validation_error(
        "an operand must be text, a number or a boolean", "To compare with several values, use `in`."
    )


def _check_sortable(value: Any) -> str | int | Decimal:
    scalar = _check_scalar(value)
    if isinstance(scalar, bool):
        raise validation_error("true and false have no order", "Compare with `eq` or `ne`.")
    return scalar


def _check_list_item(value: Any, index: int) -> str | int | Decimal | bool:
    if isinstance(value, dict):
        raise validation_error(
            "a list may contain only plain values",
            "For traits and value expressions, write one `eq` for each of them, under `any`.",
            index,
        )
    if isinstance(value, list):
        raise validation_error("a list may contain only plain values", "Put the items into the outer list.", index)
    return _check_scalar(value)


def _check_values(value: Any) -> list[str | int | Decimal | bool]:
    if not isinstance(value, list):
        raise validation_error("the value must be a list", "Put the values in [ ], or use `eq` for one value.")
    if not value:
        raise validation_error("the list is empty", "Give at least one value.")
    items = [_check_list_item(item, index) for index, item in enumerate(value)]
    earlier_keys: set[tuple[bool, str | int | Decimal]] = set()
    for index, item in enumerate(items):
        key = (isinstance(item, bool), item)
        if key in earlier_keys:
            raise validation_error("the list contains this value twice", "Remove one of them.", index)
        earlier_keys.add(key)
    return items


def _check_bounds(value: Any) -> list[str | int | Decimal]:
    if not isinstance(value, list) or len(value) != 2:
        raise validation_error(
            "the value must be a list of two bounds", "Write [lowest, highest]; the range includes both bounds."
        )
    for index, bound in enumerate(value):
        if isinstance(bound, dict):
            raise validation_error(
                "the bounds of `between` must be plain values", "Use `gte` and `lte` instead.", index
            )
    low, high = (_check_sortable(item) for item in value)
    low_key, high_key = _order_key(low, fold=False), _order_key(high, fold=False)
    if isinstance(low_key, str) != isinstance(high_key, str):
        raise validation_error("a number and a text have no order", "Give two numbers or two texts.")
    if low_key > high_key:  # type: ignore[operator]
        raise validation_error("the lower bound is greater than the upper bound", "Write [lowest, highest].")
    return [low, high]


def _check_text_part(value: Any) -> str:
    if not isinstance(value, str):
        raise validation_error("the value must be text", "Put it in quotes.")
    if not value:
        raise validation_error("the text is empty, and every text contains the empty text", "Use `exists: true`.")
    return value


def _check_element(value: Any) -> str | int | Decimal | bool:
    scalar = _check_scalar(value)
    return _check_text_part(scalar) if isinstance(scalar, str) else scalar


def _check_pattern(value: Any) -> str:
    if isinstance(value, dict):
        raise validation_error(
            "the pattern of `matches` must be plain text", "Write the pattern as text, or use `contains`."
        )
    pattern = _check_text_part(value)
    if len(pattern) > PATTERN_CHARS_MAX:
        raise validation_error(f"the pattern is longer than {PATTERN_CHARS_MAX} characters", "Shorten it.")
    pattern_error = find_pattern_error(pattern)
    if pattern_error is not None:
        raise validation_error(
            f"the pattern is not valid: {pattern_error}",
            "Write it in RE2 syntax, which has no look-around and no back-references.",
        )
    return pattern


def _check_flag(value: Any) -> bool:
    if value is not True:
        raise validation_error("the only value allowed here is true", "Write true, or leave the key out.")
    return True


Scalar = Annotated[str | int | Decimal | bool, PlainValidator(_check_scalar), WithJsonSchema(SCALAR_SCHEMA)]
Sortable = Annotated[
    str | int | Decimal,
    PlainValidator(_check_sortable),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "number"}], "description": "A number or text."}),
]
Values = Annotated[
    list[str | int | Decimal | bool],
    PlainValidator(_check_values),
    WithJsonSchema({"type": "array", "items": SCALAR_SCHEMA, "minItems": 1, "uniqueItems": True}),
]
Bounds = Annotated[
    list[str | int | Decimal],
    PlainValidator(_check_bounds),
    WithJsonSchema(
        {
            "type": "array",
            "items": {"anyOf": [{"type": "string"}, {"type": "number"}]},
            "minItems": 2,
            "maxItems": 2,
            "description": "[lowest, highest]; the range includes both bounds.",
        }
    ),
]
TextPart = Annotated[str, PlainValidator(_check_text_part), WithJsonSchema({"type": "string", "minLength": 1})]
Element = Annotated[str | int | Decimal | bool, PlainValidator(_check_element), WithJsonSchema(SCALAR_SCHEMA)]
Pattern = Annotated[
    str,
    PlainValidator(_check_pattern),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": PATTERN_CHARS_MAX, "examples": ["^/blog/[0-9]+"]}),
]
Flag = Annotated[bool, PlainValidator(_check_flag), WithJsonSchema(_FLAG_SCHEMA)]


def _operand_kind(value: Any) -> str:
    return "reading" if isinstance(value, dict | BaseModel) else "plain"


_PlainValue = TypeVar("_PlainValue")
Operand = Annotated[
    Annotated[_PlainValue, Tag("plain")] | Annotated["Reading", Tag("reading")], Discriminator(_operand_kind)
]
"""A plain value of the given type, or a trait or value expression."""

_NEGATIVE_OPERATORS: Final = ("ne", "not_in", "not_contains", "none_of")
_RANGE_OPERATORS: Final = ("gt", "gte", "lt", "lte", "between")
_LIST_OPERATORS: Final = ("in_", "not_in", "any_of", "all_of", "none_of")
_DATE_OPERATORS: Final = ("after", "before_date", "within_last", "within_next", "anniversary_within")
_CLOCK_OPERATORS: Final = ("within_last", "within_next", "anniversary_within")
"""Operators whose result depends on the current time. They are allowed beside ``eq``, because they restrict the
comparison further."""


def documented_config(description: str, *examples: dict[str, Any]) -> ConfigDict:
    """Return a model configuration that refuses type conversion and unknown keys, with the texts for OpenAPI."""

    def finish(schema: dict[str, Any]) -> None:
        schema |= {"description": description, "examples": list(examples)}
        for name, field in schema.get("properties", {}).items():
            # Validation refuses null for an optional modifier, so the schema must not allow null.
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
    """One or more operators; a value satisfies the comparison if it satisfies all of them."""

    model_config = documented_config(
        "One or more operators. The value must satisfy all of them.",
        {"gte": 50, "lt": 100},
        {"contains": "serum", "ignore_case": True},
        {"gt": {"avg": "total", "of": "Order Completed"}},
    )

    eq: Operand[Scalar] | None = Field(None, description="The value equals this one and has the same type.")
    ne: Operand[Scalar] | None = Field(None, description="The value does not equal this one, or is missing.")
    gt: Operand[Sortable] | None = Field(
        None, description="The value is greater than this one. Text that contains a number is compared as that number."
    )
    gte: Operand[Sortable] | None = Field(None, description="The value is greater than this one, or equal.")
    lt: Operand[Sortable] | None = Field(None, description="The value is less than this one.")
    lte: Operand[Sortable] | None = Field(None, description="The value is less than this one, or equal.")
    between: Bounds | None = Field(None, description="The value is between the two bounds, or equals one of them.")
    in_: Values | None = Field(None, alias="in", description="The value equals one of these.")
    not_in: Values | None = Field(None, description="The value does not equal any of these, or is missing.")
    contains: Operand[Element] | None = Field(
        None, description="The value is an array with this element, or text that contains this text."
    )
    not_contains: Operand[Element] | None = Field(None, description="The exact opposite of `contains`.")
    starts_with: Operand[TextPart] | None = Field(None, description="The value is text that starts with this text.")
    ends_with: Operand[TextPart] | None = Field(None, description="The value is text that ends with this text.")
    matches: Pattern | None = Field(
        None,
        description="The value is text in which this pattern is found. RE2 syntax; ^ and $ match the ends of the text.",
    )
    exists: bool | None = Field(
        None, description="true: the value exists. false: the value is missing. A null value counts as missing."
    )
    any_of: Values | None = Field(
        None, description="The value is an array with at least one of these. A single value counts as an array of one."
    )
    all_of: Values | None = Field(None, description="The value is an array with all of these.")
    none_of: Values | None = Field(None, description="The exact opposite of `any_of`.")
    after: Operand[Moment] | None = Field(None, description="The value is a date later than this one.")
    before_date: Operand[Moment] | None = Field(None, description="The value is a date earlier than this one.")
    within_last: Length | None = Field(
        None, description="The value is a date in the past, and less than this long ago: date <= now < date + length."
    )
    within_next: Length | None = Field(
        None, description="The value is a date in the future, at most this far away: now < date <= now + length."
    )
    anniversary_within: Length | None = Field(
        None, description="The value is a date whose next anniversary is today or at most this far away."
    )
    ignore_case: Flag | None = Field(None, description="Ignore the difference between upper and lower case.")

    @property
    def operators(self) -> list[str]:
        """Field names of the operators that the comparison contains, in the order of the fields above."""
        return [name for name in Comparison.model_fields if name != "ignore_case" and getattr(self, name) is not None]

    @property
    def has_dates(self) -> bool:
        """True if an operator compares dates, whose first instant depends on a timezone."""
        return any(getattr(self, name) is not None for name in _DATE_OPERATORS)

    @model_validator(mode="after")
    def _check_operators(self) -> Self:
        operators = self.operators
        if not operators and self._needs_operator():
            raise validation_error("the comparison has no operator", "Add one, such as `eq`, `gt` or `exists`.")
        _refuse_idle_operators(operators, self)
        _refuse_contradictory_dates(self)
        if self.ignore_case and not any(_is_text_operand(name, getattr(self, name)) for name in operators):
            raise validation_error(
                "`ignore_case` has no effect, because the comparison contains no text", "Remove it.", "ignore_case"
            )
        return self

    def _needs_operator(self) -> bool:
        return True


def _refuse_idle_operators(operators: list[str], comparison: Comparison) -> None:
    # A trait or value expression differs between customers, so an operator with one can always restrict the comparison
    # further.
    fixed = [name for name in operators if not isinstance(getattr(comparison, name), BaseModel)]
    _refuse_beside_equality([name for name in fixed if name not in _CLOCK_OPERATORS])
    if "exists" in operators:
        for name in operators:
            if name != "exists" and (comparison.exists is False or name not in _NEGATIVE_OPERATORS):
                raise validation_error(
                    f"`exists` has no effect beside `{_written_name(name)}`, or contradicts it", "Remove it.", "exists"
                )
    if "ne" in fixed and "not_in" in fixed:
        raise validation_error(
            "`ne` and `not_in` both exclude values", "Move the value of `ne` into the list of `not_in`.", "ne"
        )
    bounds = [name for name in _RANGE_OPERATORS if name in fixed]
    for strict, inclusive in (("gt", "gte"), ("lt", "lte")):
        if strict in bounds and inclusive in bounds:
            raise validation_error(f"`{strict}` and `{inclusive}` cannot be combined", "Keep one of them.", inclusive)
    if "between" in bounds and len(bounds) > 1:
        raise validation_error(
            "`between` already contains both bounds", "Keep `between`, or keep the single bounds.", bounds[0]
        )
    lower = next((name for name in ("gt", "gte") if name in bounds), None)
    upper = next((name for name in ("lt", "lte") if name in bounds), None)
    if lower and upper:
        _refuse_empty_range(lower, upper, comparison)


def _refuse_beside_equality(operators: list[str]) -> None:
    equality = next((name for name in ("eq", "in_") if name in operators), None)
    if equality is not None and len(operators) > 1:
        idle = next(name for name in operators if name != equality)
        raise validation_error(
            f"`{_written_name(idle)}` has no effect beside `{_written_name(equality)}`, or contradicts it",
            "Keep one of them.",
            _written_name(idle),
        )


def _refuse_empty_range(lower: str, upper: str, comparison: Comparison) -> None:
    fold = bool(comparison.ignore_case)
    low, high = _order_key(getattr(comparison, lower), fold), _order_key(getattr(comparison, upper), fold)
    if isinstance(low, str) != isinstance(high, str):
        raise validation_error("a number and a text have no order", "Give two numbers or two texts.", upper)
    is_empty = low > high or (low == high and (lower, upper) != ("gte", "lte"))  # type: ignore[operator]
    if is_empty:
        raise validation_error(f"no value satisfies both `{lower}` and `{upper}`", "Swap or correct the bounds.", upper)


def _refuse_contradictory_dates(comparison: Comparison) -> None:
    if comparison.within_last is not None and comparison.within_next is not None:
        raise validation_error(
            "no date satisfies both `within_last` and `within_next`",
            "Keep one, or put each in its own node.",
            "within_next",
        )
    if (
        isinstance(comparison.after, str)
        and isinstance(comparison.before_date, str)
        and is_not_before(comparison.after, comparison.before_date)
    ):
        raise validation_error(
            "no date satisfies both `after` and `before_date`",
            "`before_date` must be later than `after`.",
            "before_date",
        )


def _written_name(name: str) -> str:
    """Return the JSON key of the field, without the trailing underscore that avoids a Python keyword."""
    return name.rstrip("_")


def _is_text_operand(name: str, operand: Any) -> bool:
    if name in _DATE_OPERATORS:
        return False
    if isinstance(operand, BaseModel):
        return True  # The value that it reads may be text.
    if name in _RANGE_OPERATORS:
        bounds = operand if isinstance(operand, list) else [operand]
        return any(isinstance(_order_key(bound, fold=False), str) for bound in bounds)
    if name in _LIST_OPERATORS:
        return any(isinstance(item, str) for item in operand)
    return isinstance(operand, str)


def _order_key(value: str | Number, fold: bool) -> str | Number:
    number = as_number(value)
    if number is not None:
        return number
    return str(value).casefold() if fold else str(value)
