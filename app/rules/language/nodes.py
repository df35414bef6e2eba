"""Models of the nodes of a rule, one for each head, and their union ``Rule``.

The models also produce the published JSON schema, so each has a description and examples. A model checks one node.
Errors that involve other definitions (unknown segments, cycles) are found when a set of definitions is compiled.
:mod:`app.rules.language.touchpoint_nodes` defines the nodes that match touchpoints.
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
        "True if every rule in the list is true.",
        {"all": [{"did": "Product Viewed"}, {"not": {"did": "Order Completed"}}]},
    )
    head: ClassVar = "all"

    all_: list[Rule] = Field(alias="all", min_length=1)


class AnyOf(BaseModel):
    model_config = documented_config(
        "True if at least one rule in the list is true.", {"any": [{"did": "Email Opened"}, {"did": "Push Opened"}]}
    )
    head: ClassVar = "any"

    any_: list[Rule] = Field(alias="any", min_length=1)


class Not(BaseModel):
    model_config = documented_config(
        "True if the rule under `not` is false.",
        {"not": {"did": "Order Completed", "within": "90d"}},
    )
    head: ClassVar = "not"

    not_: Rule = Field(alias="not")


class Everyone(BaseModel):
    model_config = documented_config("True for every customer.", {"everyone": True})
    head: ClassVar = "everyone"

    everyone: Flag


# ------------------------------------------------------------ aggregates with a comparison


class Sum(SumValue, Comparison):
    model_config = documented_config(
        "True if the sum of a property over the matching touchpoints in the window satisfies the comparison.",
        {"sum": "total", "of": "Order Completed", "within": "365d", "gte": 500},
    )


class Avg(AvgValue, Comparison):
    model_config = documented_config(
        "True if the average of a property, which is not rounded, satisfies the comparison.",
        {"avg": "total", "of": "Order Completed", "gt": 40},
    )


class Min(MinValue, Comparison):
    model_config = documented_config(
        "True if the lowest number of a property satisfies the comparison.",
        {"min": "rating", "of": "Product Reviewed", "lte": 2},
    )


class Max(MaxValue, Comparison):
    model_config = documented_config(
        "True if the highest number of a property satisfies the comparison.",
        {"max": "total", "of": "Order Completed", "gt": {"trait": "largest_budget"}},
    )


class Distinct(DistinctValue, Comparison):
    model_config = documented_config(
        "True if the number of different values of a property satisfies the comparison.",
        {"distinct": "touchpoint.channel", "of": "*", "within": "30d", "gte": 3},
    )


class FirstValue(FirstValueValue, Comparison):
    model_config = documented_config(
        "True if the earliest value of a property satisfies the comparison.",
        {"first_value": "touchpoint.channel", "of": "*", "eq": "ads"},
    )


class LastValue(LastValueValue, Comparison):
    model_config = documented_config(
        "True if the latest value of a property satisfies the comparison.",
        {"last_value": "renews_on", "of": "Subscription Renewed", "within_next": "30d"},
    )


class MostFrequent(MostFrequentValue, Comparison):
    model_config = documented_config(
        "True if the most frequent value of a property satisfies the comparison. In a tie, the value that occurred "
        "latest is compared.",
        {"most_frequent": "category", "of": "Product Viewed", "within": "90d", "in": ["serum", "cream"]},
    )


# ------------------------------------------------------------------------------------- traits, segments and stages


class TraitIs(Comparison):
    """A condition on the current value of a trait, how long it has held, or when the value changed."""

    model_config = documented_config(
        "True if the current value of the trait satisfies the comparison. `held_for` requires that it has done so for "
        "a time; `changed_within` requires that the value changed recently.",
        {"trait": "plan", "in": ["pro", "team"]},
        {"trait": "address.city", "eq": "lisboa", "ignore_case": True},
        {"trait": "plan", "eq": "free", "held_for": "30d"},
        {"trait": "birthday", "anniversary_within": "7d", "timezone": "Europe/Lisbon"},
    )
    head: ClassVar = "trait"

    trait: TraitName = Field(
        description="Name of the trait. A name with dots is a path into an object unless a trait has this exact name."
    )
    held_for: Length | None = Field(
        None,
        description="The comparison has been true for this long without a break. If the node has no comparison, the "
        "trait has had the same value for this long.",
    )
    changed_within: Length | None = Field(
        None, description="The value changed less than this long ago. Its first value and its removal are changes."
    )
    timezone: Timezone | None = Field(
        None,
        description="Timezone in which dates begin and months are added. Default: the timezone trait of the customer, "
        "then the timezone of the workspace.",
    )

    def _needs_operator(self) -> bool:
        return self.held_for is None and self.changed_within is None

    @model_validator(mode="after")
    def _check_times(self) -> Self:
        if self.held_for and self.changed_within and not self.operators:
            _refuse_contradiction(self.held_for, self.changed_within, "changed_within", "held_for")
        dated = is_calendar_length(self.held_for) or is_calendar_length(self.changed_within) or self.has_dates
        if self.timezone and not dated:
            raise validation_error(
                "`timezone` has no effect, because the node has no date operator and no length in months or years",
                "Remove it.",
                "timezone",
            )
        return self


class _Membership(BaseModel):
    """Base of nodes about the membership in a segment or stage: now, for some time, or at any time up to now."""

    for_at_least: Length | None = Field(
        None, description="The customer has been in the segment or stage for at least this long without a break."
    )
    entered_within: Length | None = Field(
        None, description="The customer is in the segment or stage now and entered it less than this long ago."
    )
    ever: Flag | None = Field(None, description="The customer was in the segment or stage at some instant up to now.")
    timezone: Timezone | None = Field(
        None,
        description="Timezone in which months are added. Default: the timezone trait of the customer, then the "
        "timezone of the workspace.",
    )

    @model_validator(mode="after")
    def _check_times(self) -> Self:
        beside = next((name for name in ("for_at_least", "entered_within") if getattr(self, name) is not None), None)
        if self.ever and beside:
            raise validation_error(f"`ever` cannot be combined with `{beside}`", "Keep one of them.", beside)
        if self.for_at_least and self.entered_within:
            _refuse_contradiction(self.for_at_least, self.entered_within, "entered_within", "for_at_least")
        if self.timezone and not (is_calendar_length(self.for_at_least) or is_calendar_length(self.entered_within)):
            raise validation_error(
                "`timezone` has no effect, because the node has no length in months or years", "Remove it.", "timezone"
            )
        return self


def _refuse_contradiction(least: str, most: str, at: str, other: str) -> None:
    if is_never_longer(most, least):
        raise validation_error(
            f"no duration satisfies both `{other}` and `{at}`", f"`{at}` must be longer than `{other}`.", at
        )


class InSegment(_Membership):
    model_config = documented_config(
        "True if the customer is in the segment now. `for_at_least` and `entered_within` also test for how long; "
        "`ever` tests for membership at any time up to now instead.",
        {"segment": "repeat-buyers"},
        {"segment": "repeat-buyers", "for_at_least": "30d"},
        {"segment": "trial", "ever": True},
    )
    head: ClassVar = "segment"

    segment: Key


class AtStage(_Membership):
    model_config = documented_config(
        "True if the current stage of the customer is one of these. `for_at_least` and `entered_within` also test for "
        "how long; `ever` tests for the stages at any time up to now instead.",
        {"stage": ["purchase", "post-purchase"], "journey": "six-stage"},
        {"stage": "consideration", "entered_within": "7d"},
    )
    head: ClassVar = "stage"

    stage: Keys
    journey: Key | None = Field(None, description="Key of the journey. Default: the default journey of the workspace.")


class Bucket(BaseModel):
    model_config = documented_config(
        "True for a random but stable share of all customers: [0, 10] is a tenth. A hash of the strongest, earliest "
        "identity of a customer selects the bucket.",
        {"bucket": [0, 50], "salt": "welcome-test"},
    )
    head: ClassVar = "bucket"

    bucket: list[Annotated[int, Field(ge=0, le=100)]] = Field(
        min_length=2,
        max_length=2,
        description="[first, last] in percent; the share includes `first` and excludes `last`.",
    )
    salt: Annotated[str, StringConstraints(max_length=200)] = Field(
        "", description="A different salt selects different customers."
    )

    @model_validator(mode="after")
    def _check_share(self) -> Self:
        if self.bucket[0] >= self.bucket[1]:
            raise validation_error(
                "the share is empty", "Write [first, last] with a higher `last`, such as [0, 50].", "bucket"
            )
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
        Field(description="A node of a rule: an object with exactly one head key, which selects the kind of node."),
    ],
)
"""Union of all nodes of a rule; the head key selects the model."""


RULES: Final = tuple(models_of(Rule))
for _model in RULES:
    _model.model_rebuild()
