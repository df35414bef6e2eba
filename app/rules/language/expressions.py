"""Models of value expressions, such as ``{"sum": "total", "of": "Order Completed"}``, and of filters and windows.

A value expression computes one value from a customer's touchpoints. It defines a computed trait, or is an operand of a
comparison. Rules about touchpoints have the same filters and windows, so this module also has their base classes:
:class:`Filtered` and :class:`Windowed`.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Annotated, Any, ClassVar, Final, Self, get_args

from pydantic import BaseModel, Discriminator, Field, PlainValidator, Tag, WithJsonSchema, model_validator
from typing_extensions import TypeAliasType

from app.rules.language.comparison import SCALAR_SCHEMA, Comparison, Scalar, documented_config
from app.rules.language.fields import (
    DURING_AGE_DAYS_MAX,
    Channels,
    DuringWord,
    Events,
    Length,
    Moment,
    Path,
    Sources,
    Timezone,
    TraitName,
    is_calendar_length,
    is_never_longer,
    is_not_before,
    lasts_at_least_days,
    moment_bounds,
)
from app.rules.language.validation import HEADS, STEP_HEADS, VALUE_HEADS, validation_error
from app.rules.values import durations

_ALL_HEADS: Final = frozenset((*HEADS, *VALUE_HEADS, *STEP_HEADS))


def head_of(node: Any) -> str | None:
    """Return the head of the node, which selects its model. ``validation.check_structure`` ensures a single head."""
    if isinstance(node, BaseModel):
        return getattr(type(node), "head", None)
    return next((key for key in node if key in _ALL_HEADS), None) if isinstance(node, dict) else None


# ---------------------------------------------------------------------------------------- filters and windows


def _where_kind(value: Any) -> str:
    return "comparison" if isinstance(value, dict | Comparison) else "value"


def _refuse_plain_list(value: Any) -> Any:
    if isinstance(value, list):
        raise validation_error(
            "a list is not a comparison", 'Write {"in": [...]} for "one of these", or {"contains": ...} for arrays.'
        )
    return value


WhereValue = Annotated[
    Annotated[Comparison, Tag("comparison")]
    | Annotated[Scalar, PlainValidator(_refuse_plain_list), WithJsonSchema(SCALAR_SCHEMA), Tag("value")],
    Discriminator(_where_kind),
]


class Filtered(BaseModel):
    """Base of nodes with a filter, which selects touchpoints by properties, channel and source (not by event name)."""

    where: dict[Path, WhereValue] | None = Field(
        None,
        min_length=1,
        description="Maps a path to a value or a comparison; a touchpoint must satisfy all of them. A dotted path "
        "starts inside the properties. The prefixes `context.`, `traits.` and `touchpoint.` read the other parts of "
        "the message.",
    )
    channel: Channels | None = None
    source: Sources | None = None

    @property
    def filter_has_dates(self) -> bool:
        return any(isinstance(test, Comparison) and test.has_dates for test in (self.where or {}).values())


class Hours(BaseModel):
    model_config = documented_config(
        "Hours of the local day of the touchpoint: from the first hour until just before the second. If the second "
        "is lower, the hours continue past midnight.",
        {"hours": [9, 17]},
        {"hours": [22, 6]},
    )

    hours: list[Annotated[int, Field(ge=0, le=24)]] = Field(min_length=2, max_length=2)

    @model_validator(mode="after")
    def _check_hours(self) -> Self:
        start, end = self.hours
        if start % 24 == end % 24:
            raise validation_error(
                "the two hours are equal, so they cover the whole day or no time",
                "Write [first, last], such as [9, 17]; leave `during` out for the whole day.",
                "hours",
            )
        return self


def _during_kind(value: Any) -> str:
    return "hours" if isinstance(value, dict | Hours) else "word"


During = Annotated[Annotated[Hours, Tag("hours")] | Annotated[DuringWord, Tag("word")], Discriminator(_during_kind)]


class Windowed(BaseModel):
    """Base of nodes with a time window for touchpoints.

    A touchpoint must satisfy every part that is set. If no part is set, the window is unlimited.
    """

    within: Length | None = Field(
        None, description="The touchpoint is younger than this: t <= now < t + length, where t is its instant."
    )
    before: Length | None = Field(
        None, description="The touchpoint is at least this old: t + length <= now, where t is its instant."
    )
    from_: Moment | None = Field(None, alias="from", description="The touchpoint is at this instant or date, or later.")
    to: Moment | None = Field(None, description="The touchpoint is earlier than this instant or date.")
    during: During | None = Field(
        None,
        description="The touchpoint is in the current or previous day, week, month or year, on a weekend, or within "
        "hours of the local day.",
    )
    timezone: Timezone | None = Field(
        None,
        description="Timezone in which days begin and months are added. Default: the timezone trait of the customer, "
        "then the timezone of the workspace.",
    )

    @property
    def has_window(self) -> bool:
        return any(part is not None for part in (self.within, self.before, self.from_, self.to, self.during))

    @model_validator(mode="after")
    def _check_window(self) -> Self:
        if self.within and self.before and is_never_longer(self.within, self.before):
            raise validation_error(
                "no touchpoint satisfies both `within` and `before`",
                "`before` must be shorter than `within`.",
                "before",
            )
        if self.before and isinstance(self.during, str):
            age_days_max = DURING_AGE_DAYS_MAX[self.during]
            if age_days_max is not None and lasts_at_least_days(self.before, age_days_max):
                raise validation_error(
                    f"no touchpoint in `{self.during}` is as old as `before` requires",
                    "Remove `before` or `during`.",
                    "before",
                )
        if self.from_ and self.to:
            _refuse_empty_range(self.from_, self.to, self.timezone)
        if self.timezone and not self._needs_zone():
            raise validation_error(
                "`timezone` has no effect, because the node has no date and no length in months or years",
                "Remove it.",
                "timezone",
            )
        return self

    def _needs_zone(self) -> bool:
        """Return whether the result of the node depends on a timezone."""
        has_local_bound = any(text and isinstance(durations.parse_moment(text), date) for text in (self.from_, self.to))
        filter_has_dates = isinstance(self, Filtered) and self.filter_has_dates
        comparison_has_dates = isinstance(self, Comparison) and self.has_dates
        return (
            has_local_bound
            or self.during is not None
            or is_calendar_length(self.within)
            or is_calendar_length(self.before)
            or filter_has_dates
            or comparison_has_dates
        )


def _refuse_empty_range(start: str, end: str, zone: str | None) -> None:
    if is_not_before(start, end, zone):
        raise validation_error(
            "the window ends before it begins",
            "`to` must be later than `from`; the window does not include `to` itself.",
            "to",
        )
    first, last = (moment_bounds(durations.parse_moment(text), zone) for text in (start, end))
    if last[0] - first[1] > durations.LENGTH_MAX:
        raise validation_error(
            "the window is longer than 100 years", "Reduce the distance between `from` and `to`.", "to"
        )


# ----------------------------------------------------------------------------------- aggregates and instants


class _Aggregate(Filtered, Windowed):
    of: Events = Field(description="Event names of the touchpoints to aggregate.")


class SumValue(_Aggregate):
    model_config = documented_config(
        "The exact sum of a property over the matching touchpoints in the window; 0 if no touchpoint matches.",
        {"sum": "total", "of": "Order Completed", "within": "365d"},
    )
    head: ClassVar = "sum"

    sum: Path


class AvgValue(_Aggregate):
    model_config = documented_config(
        "The average of a property over the matching touchpoints in the window, without rounding.",
        {"avg": "total", "of": "Order Completed"},
    )
    head: ClassVar = "avg"

    avg: Path


class MinValue(_Aggregate):
    model_config = documented_config(
        "The lowest number that a property has in the matching touchpoints in the window.",
        {"min": "rating", "of": "Product Reviewed"},
    )
    head: ClassVar = "min"

    min: Path


class MaxValue(_Aggregate):
    model_config = documented_config(
        "The highest number that a property has in the matching touchpoints in the window.",
        {"max": "total", "of": "Order Completed", "within": "1y"},
    )
    head: ClassVar = "max"

    max: Path


class DistinctValue(_Aggregate):
    model_config = documented_config(
        "The number of different values that a property has in the matching touchpoints in the window.",
        {"distinct": "product_id", "of": "Product Viewed", "within": "7d"},
    )
    head: ClassVar = "distinct"

    distinct: Path


class FirstValueValue(_Aggregate):
    model_config = documented_config(
        "The value of a property in the earliest matching touchpoint in the window that has the property.",
        {"first_value": "touchpoint.channel", "of": "*"},
    )
    head: ClassVar = "first_value"

    first_value: Path


class LastValueValue(_Aggregate):
    model_config = documented_config(
        "The value of a property in the latest matching touchpoint in the window that has the property.",
        {"last_value": "payment_method", "of": "Order Completed"},
    )
    head: ClassVar = "last_value"

    last_value: Path


class MostFrequentValue(_Aggregate):
    model_config = documented_config(
        "The value that a property has most often in the matching touchpoints in the window. In a tie, the value that "
        "occurred latest.",
        {"most_frequent": "category", "of": "Product Viewed", "within": "90d"},
    )
    head: ClassVar = "most_frequent"

    most_frequent: Path


class CountValue(Filtered, Windowed):
    model_config = documented_config(
        "The number of matching touchpoints in the window.", {"count": "Order Completed", "within": "365d"}
    )
    head: ClassVar = "count"

    count: Events


class FirstAtValue(Filtered, Windowed):
    model_config = documented_config(
        "The instant of the earliest matching touchpoint in the window, for date operators.",
        {"first_at": "Order Completed"},
    )
    head: ClassVar = "first_at"

    first_at: Events


class LastAtValue(Filtered, Windowed):
    model_config = documented_config(
        "The instant of the latest matching touchpoint in the window, for date operators.",
        {"last_at": "Support Ticket Opened", "channel": "support"},
    )
    head: ClassVar = "last_at"

    last_at: Events


class TraitOperand(BaseModel):
    model_config = documented_config("The current value of a trait, as an operand.", {"trait": "average_order"})
    head: ClassVar = "trait"

    trait: TraitName = Field(
        description="Name of the trait. A name with dots is a path into an object unless a trait has this exact name."
    )


Value = TypeAliasType(
    "Value",
    Annotated[
        Annotated[SumValue, Tag("sum")]
        | Annotated[AvgValue, Tag("avg")]
        | Annotated[MinValue, Tag("min")]
        | Annotated[MaxValue, Tag("max")]
        | Annotated[DistinctValue, Tag("distinct")]
        | Annotated[FirstValueValue, Tag("first_value")]
        | Annotated[LastValueValue, Tag("last_value")]
        | Annotated[MostFrequentValue, Tag("most_frequent")]
        | Annotated[CountValue, Tag("count")]
        | Annotated[FirstAtValue, Tag("first_at")]
        | Annotated[LastAtValue, Tag("last_at")],
        Discriminator(head_of),
        Field(description="A value computed from touchpoints, for a computed trait or an operand of a comparison."),
    ],
)
"""Union of all value expressions; the head key selects the model."""


def _reading_kind(value: Any) -> str:
    return "trait" if head_of(value) == "trait" else "value"


Reading = TypeAliasType(
    "Reading",
    Annotated[
        Annotated[TraitOperand, Tag("trait")] | Annotated[Value, Tag("value")],
        Discriminator(_reading_kind),
        Field(description="An operand whose value differs between customers: a trait, or a value expression."),
    ],
)


def models_of(union: TypeAliasType) -> Iterator[type[BaseModel]]:
    """Yield the models of a tagged union."""
    tagged = get_args(get_args(union.__value__)[0])
    yield from (get_args(option)[0] for option in tagged)


# Comparisons and value expressions contain each other, so pydantic can complete the models only after both are defined.
VALUES: Final = tuple(models_of(Value))
Comparison.model_rebuild(_types_namespace={"Reading": Reading})
Filtered.model_rebuild()
for _model in VALUES:
    _model.model_rebuild()
