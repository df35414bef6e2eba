"""The nodes of the rule language: one model for each head, and ``Rule``, the union of them.

The models are the published schema too, so each carries a title, a description and an example. They check what
can be seen in one node; what needs other definitions (unknown segments, cycles) is checked when a set of
definitions is compiled. :mod:`app.rules.language.touchpoint_nodes` defines the nodes about touchpoints.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Self

from pydantic import (
    BaseModel,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    model_validator,
)
from typing_extensions import TypeAliasType

from app.rules.language.comparison import Comparison, Flag, documented_config
from app.rules.language.expressions import (
    AvgValue,
    DistinctValue,
    FirstValueValue,
    LastValueValue,
    MaxValue,
    MinValue,
    MostFrequentValue,
    SumValue,
    head_of,
    models_of,
)
from app.rules.language.fields import (
    Key,
    Keys,
    Length,
    Timezone,
    TraitName,
    is_calendar_length,
    is_never_longer,
)
from app.rules.language.touchpoint_nodes import Did, First, Last, Regularly, Sequence
from app.rules.language.validation import validation_error

# ------------------------------------------------------------------------------------------ boolean algebra


class All(BaseModel):
    model_config = documented_config(
        "True when every rule of the list is true.",
        {"all": [{"did": "Product Viewed"}, {"not": {"did": "Order Completed"}}]},
    )
    head: ClassVar = "all"

    all_: list[Rule] = Field(alias="all", min_length=1)


class AnyOf(BaseModel):
    model_config = documented_config(
        "True when at least one rule of the list is true.", {"any": [{"did": "Email Opened"}, {"did": "Push Opened"}]}
    )
    head: ClassVar = "any"

    any_: list[Rule] = Field(alias="any", min_length=1)


class Not(BaseModel):
    model_config = documented_config(
        "True when the rule is false. The universe is every customer.",
        {"not": {"did": "Order Completed", "within": "90d"}},
    )
    head: ClassVar = "not"

    not_: Rule = Field(alias="not")


class Everyone(BaseModel):
    model_config = documented_config("True of every customer.", {"everyone": True})
    head: ClassVar = "everyone"

    everyone: Flag


# ------------------------------------------------------------ aggregates with a comparison


class Sum(SumValue, Comparison):
    model_config = documented_config(
        "True when the sum of a property over the matching touchpoints in the window satisfies the comparison.",
        {"sum": "total", "of": "Order Completed", "within": "365d", "gte": 500},
    )


class Avg(AvgValue, Comparison):
    model_config = documented_config(
        "True when the average of a property, without rounding, satisfies the comparison.",
        {"avg": "total", "of": "Order Completed", "gt": 40},
    )


class Min(MinValue, Comparison):
    model_config = documented_config(
        "True when the least number of a property satisfies the comparison.",
        {"min": "rating", "of": "Product Reviewed", "lte": 2},
    )


class Max(MaxValue, Comparison):
    model_config = documented_config(
        "True when the greatest number of a property satisfies the comparison.",
        {"max": "total", "of": "Order Completed", "gt": {"trait": "largest_budget"}},
    )


class Distinct(DistinctValue, Comparison):
    model_config = documented_config(
        "True when the number of different values of a property satisfies the comparison.",
        {"distinct": "touchpoint.channel", "of": "*", "within": "30d", "gte": 3},
    )


class FirstValue(FirstValueValue, Comparison):
    model_config = documented_config(
        "True when the first value of a property satisfies the comparison.",
        {"first_value": "touchpoint.channel", "of": "*", "eq": "ads"},
    )


class LastValue(LastValueValue, Comparison):
    model_config = documented_config(
        "True when the latest value of a property satisfies the comparison.",
        {"last_value": "renews_on", "of": "Subscription Renewed", "within_next": "30d"},
    )


class MostFrequent(MostFrequentValue, Comparison):
    model_config = documented_config(
        "True when the most frequent value of a property satisfies the comparison; of a tie the latest counts.",
        {"most_frequent": "category", "of": "Product Viewed", "within": "90d", "in": ["serum", "cream"]},
    )


# ------------------------------------------------------------------------------------- traits, segments and stages


class TraitIs(Comparison):
    """A trait that satisfies a comparison, has done so for a time, or changed a short time ago."""

    model_config = documented_config(
        "True when the current value of the trait satisfies the comparison, for as long as held_for says, and changed "
        "within changed_within.",
        {"trait": "plan", "in": ["pro", "team"]},
        {"trait": "address.city", "eq": "lisboa", "ignore_case": True},
        {"trait": "plan", "eq": "free", "held_for": "30d"},
        {"trait": "birthday", "anniversary_within": "7d", "timezone": "Europe/Lisbon"},
    )
    head: ClassVar = "trait"

    trait: TraitName = Field(description="Its name; one with dots is first the exact name, else a path.")
    held_for: Length | None = Field(
        None, description="The comparison has held so long without a break; without one: set, and unchanged so long."
    )
    changed_within: Length | None = Field(None, description="The value changed less than this ago.")
    timezone: Timezone | None = Field(None, description="Where dates begin and months are added.")

    def _needs_operator(self) -> bool:
        return self.held_for is None and self.changed_within is None

    @model_validator(mode="after")
    def _check_times(self) -> Self:
        if self.held_for and self.changed_within and not self.operators:
            _refuse_contradiction(self.held_for, self.changed_within, "changed_within", "held_for")
        dated = is_calendar_length(self.held_for) or is_calendar_length(self.changed_within) or self.has_dates
        if self.timezone and not dated:
            raise validation_error("timezone has nothing to apply to", "Remove it, or use a date operator.", "timezone")
        return self


class _Membership(BaseModel):
    """Since when a customer has been in a segment, or at a stage."""

    for_at_least: Length | None = Field(None, description="Without a break for so long.")
    entered_within: Length | None = Field(None, description="Now, and entered less than this ago.")
    ever: Flag | None = Field(None, description="At some instant up to now.")
    timezone: Timezone | None = Field(None, description="Where months are added.")

    @model_validator(mode="after")
    def _check_times(self) -> Self:
        beside = next((name for name in ("for_at_least", "entered_within") if getattr(self, name) is not None), None)
        if self.ever and beside:
            raise validation_error(f"ever has no {beside}", "Keep one of them.", beside)
        if self.for_at_least and self.entered_within:
            _refuse_contradiction(self.for_at_least, self.entered_within, "entered_within", "for_at_least")
        if self.timezone and not (is_calendar_length(self.for_at_least) or is_calendar_length(self.entered_within)):
            raise validation_error("timezone has nothing to apply to", "Remove it; only mo and y need one.", "timezone")
        return self


def _refuse_contradiction(least: str, most: str, at: str, other: str) -> None:
    if is_never_longer(most, least):
        raise validation_error("it can be neither that long nor that short", f"Make {at} longer than {other}.", at)


class InSegment(_Membership):
    model_config = documented_config(
        "True when the customer is in the segment now: for so long, since so short a time, or ever.",
        {"segment": "repeat-buyers"},
        {"segment": "repeat-buyers", "for_at_least": "30d"},
        {"segment": "trial", "ever": True},
    )
    head: ClassVar = "segment"

    segment: Key


class AtStage(_Membership):
    model_config = documented_config(
        "True when the customer's current stage is one of them: for so long, since so short a time, or ever.",
        {"stage": ["purchase", "post-purchase"], "journey": "six-stage"},
        {"stage": "consideration", "entered_within": "7d"},
    )
    head: ClassVar = "stage"

    stage: Keys
    journey: Key | None = Field(None, description="The journey's key; without it, the workspace's default journey.")


class Bucket(BaseModel):
    model_config = documented_config(
        "True of a steady share of all customers, drawn by their strongest, earliest identity: [0, 10] is a tenth.",
        {"bucket": [0, 50], "salt": "welcome-test"},
    )
    head: ClassVar = "bucket"

    bucket: list[Annotated[int, Field(ge=0, le=100)]] = Field(
        min_length=2, max_length=2, description="[first, last) in hundredths; the last is outside."
    )
    salt: Annotated[str, StringConstraints(max_length=200)] = Field(
        "", description="Another salt draws other customers."
    )

    @model_validator(mode="after")
    def _check_share(self) -> Self:
        if self.bucket[0] >= self.bucket[1]:
            raise validation_error("nobody is in this share", "Write [first, last], such as [0, 50].", "bucket")
        return self


# ----------------------------------------------------------------------------------------------- the unions


Rule = TypeAliasType(
    "Rule",
    Annotated[
        Annotated[All, Tag("all")]
        | Annotated[AnyOf, Tag("any")]
        | Annotated[Not, Tag("not")]
        | Annotated[Everyone, Tag("everyone")]
        | Annotated[Did, Tag("did")]
        | Annotated[First, Tag("first")]
        | Annotated[Last, Tag("last")]
        | Annotated[Sum, Tag("sum")]
        | Annotated[Avg, Tag("avg")]
        | Annotated[Min, Tag("min")]
        | Annotated[Max, Tag("max")]
        | Annotated[Distinct, Tag("distinct")]
        | Annotated[FirstValue, Tag("first_value")]
        | Annotated[LastValue, Tag("last_value")]
        | Annotated[MostFrequent, Tag("most_frequent")]
        | Annotated[Sequence, Tag("sequence")]
        | Annotated[Regularly, Tag("regularly")]
        | Annotated[TraitIs, Tag("trait")]
        | Annotated[InSegment, Tag("segment")]
        | Annotated[AtStage, Tag("stage")]
        | Annotated[Bucket, Tag("bucket")],
        Discriminator(head_of),
        Field(description="A node of the rule language. Exactly one head key says which."),
    ],
)
"""A node of the language. Exactly one head key says which."""


RULES: Final = tuple(models_of(Rule))
for _model in RULES:
    _model.model_rebuild()
