"""The rule language as data: one model for each head.

The models are the published schema too, so each carries a title, a description and an example. They check what
can be seen in one node; what needs other definitions (unknown segments, cycles) is checked when a set of
definitions is compiled.
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

from app.rules.language.comparison import Comparison, Flag, published_as
from app.rules.language.expressions import (
    AvgValue,
    DistinctValue,
    Filtered,
    FirstValueValue,
    LastValueValue,
    MaxValue,
    MinValue,
    MostFrequentValue,
    SumValue,
    Windowed,
    head_of,
    models_of,
)
from app.rules.language.expressions import Value as Value  # read here as Rule is
from app.rules.language.fields import (
    PERIODS,
    Count,
    Events,
    Key,
    Keys,
    Length,
    Paths,
    Period,
    TraitName,
    Zone,
    is_calendar,
    never_longer,
)
from app.rules.language.validation import refuse

# ------------------------------------------------------------------------------------------ boolean algebra


class All(BaseModel):
    model_config = published_as(
        "True when every rule of the list is true.",
        {"all": [{"did": "Product Viewed"}, {"not": {"did": "Order Completed"}}]},
    )
    head: ClassVar = "all"

    all_: list[Rule] = Field(alias="all", min_length=1)


class AnyOf(BaseModel):
    model_config = published_as(
        "True when at least one rule of the list is true.", {"any": [{"did": "Email Opened"}, {"did": "Push Opened"}]}
    )
    head: ClassVar = "any"

    any_: list[Rule] = Field(alias="any", min_length=1)


class Not(BaseModel):
    model_config = published_as(
        "True when the rule is false. The universe is every customer.",
        {"not": {"did": "Order Completed", "within": "90d"}},
    )
    head: ClassVar = "not"

    not_: Rule = Field(alias="not")


class Everyone(BaseModel):
    model_config = published_as("True of every customer.", {"everyone": True})
    head: ClassVar = "everyone"

    everyone: Flag


# ---------------------------------------------------------------------------------------- what happened


class Did(Filtered, Windowed):
    """What a customer did, how often, in which window."""

    model_config = published_as(
        "True when the number of matching touchpoints in the window satisfies the count (at least 1 unless said).",
        {"did": "Order Completed", "where": {"total": {"gte": 50}}, "at_least": 2, "within": "90d"},
        {"did": ["Email Opened", "Email Link Clicked"], "channel": "email", "from": "1997-01-01", "to": "1997-10-01"},
        {"did": "Store Visited", "during": "weekend", "timezone": "Europe/Lisbon"},
    )
    head: ClassVar = "did"

    did: Events
    at_least: Count | None = Field(None, description="This many or more.")
    at_most: Count | None = Field(None, description="This many or fewer, none too.")
    exactly: Count | None = Field(None, description="Just this many.")
    between: list[Count] | None = Field(None, min_length=2, max_length=2, description="[lowest, highest], both inside.")

    @property
    def count(self) -> tuple[int, int | None]:
        """(lowest, highest) number that satisfies; no highest is ``None``."""
        if self.at_most is not None:
            return 0, self.at_most
        if self.exactly is not None:
            return self.exactly, self.exactly
        if self.between is not None:
            return self.between[0], self.between[1]
        return (1 if self.at_least is None else self.at_least), None

    @model_validator(mode="after")
    def _count_makes_sense(self) -> Self:
        given = [name for name in ("at_least", "at_most", "exactly", "between") if getattr(self, name) is not None]
        if len(given) > 1:
            raise refuse("there is more than one count", "Keep one of at_least, at_most, exactly, between.", given[1])
        if self.at_least == 0:
            raise refuse("at_least 0 is always true", "Ask for at least 1, or remove the node.", "at_least")
        if self.between is not None and self.between[0] > self.between[1]:
            raise refuse("the lower bound is above the upper one", "Write [lowest, highest].", "between")
        return self


class _One(Filtered, Windowed):
    """One single touchpoint of all that match, which the window must hold."""

    @model_validator(mode="after")
    def _window_required(self) -> Self:
        if not self.has_window:
            raise refuse(
                "it has no window", "Say when it may have been with within, before, from, to or during; or use did."
            )
        return self


class First(_One):
    model_config = published_as(
        "True when the first matching touchpoint of all exists and lies in the window.",
        {"first": "Order Completed", "within": "30d"},
    )
    head: ClassVar = "first"

    first: Events


class Last(_One):
    model_config = published_as(
        "True when the latest matching touchpoint of all exists and lies in the window.",
        {"last": "Order Completed", "before": "90d"},
    )
    head: ClassVar = "last"

    last: Events


class PlainDid(Filtered):
    model_config = published_as(
        "What must not follow in a sequence.", {"did": "Order Completed", "channel": ["web", "app"]}
    )
    head: ClassVar = "did"

    did: Events


class Step(PlainDid):
    model_config = published_as(
        "A step of a sequence: a matching touchpoint, later than the one of the step before.",
        {"did": "Checkout Started", "within": "1h"},
        {"did": "Order Completed", "after_at_least": "5m"},
    )

    within: Length | None = Field(None, description="The gap to the step before is shorter than this.")
    after_at_least: Length | None = Field(None, description="The gap to the step before is at least this.")

    @model_validator(mode="after")
    def _gap_makes_sense(self) -> Self:
        if self.within and self.after_at_least and never_longer(self.within, self.after_at_least):
            raise refuse("no gap is both that long and that short", "Make it shorter than within.", "after_at_least")
        return self


class NotStep(BaseModel):
    model_config = published_as(
        "The end of a sequence: nothing matching in that time after the step before. True once the time has passed.",
        {"not": {"did": "Order Completed"}, "within": "1h"},
    )
    head: ClassVar = "not"

    not_: PlainDid = Field(alias="not")
    within: Length = Field(description="How long nothing happens after the step before.")


AnyStep = Annotated[Annotated[Step, Tag("did")] | Annotated[NotStep, Tag("not")], Discriminator(head_of)]


class Sequence(Windowed):
    model_config = published_as(
        "True when there are touchpoints, one for each step, each later than the one before, all inside the window.",
        {
            "sequence": [{"did": "Product Viewed"}, {"did": "Product Added", "within": "1h"}],
            "same": ["product_id"],
            "within": "30d",
        },
        {"sequence": [{"did": "Checkout Started"}, {"not": {"did": "Order Completed"}, "within": "1h"}]},
    )
    head: ClassVar = "sequence"

    sequence: list[AnyStep] = Field(min_length=2, max_length=10, description="Only the last step may be a not.")
    same: Paths | None = Field(None, description="Paths whose values are equal in all the touchpoints.")

    @property
    def positive(self) -> list[Step]:
        """The steps that something must have happened for."""
        return [step for step in self.sequence if isinstance(step, Step)]

    @property
    def closing(self) -> NotStep | None:
        """The step at the end that nothing may have happened for."""
        last = self.sequence[-1]
        return last if isinstance(last, NotStep) else None

    @model_validator(mode="after")
    def _steps_make_sense(self) -> Self:
        for place, step in enumerate(self.sequence[:-1]):
            if isinstance(step, NotStep):
                raise refuse("only the last step may be a not", "Move it to the end.", "sequence", place, "not")
        first = self.sequence[0]
        assert isinstance(first, Step)
        for gap in ("within", "after_at_least"):
            if getattr(first, gap) is not None:
                raise refuse(
                    "there is no step before the first one",
                    f"Put {gap} on the second step, or a window on the sequence.",
                    *("sequence", 0, gap),
                )
        if self.within:
            self._refuse_steps_that_outlast(self.within)
        return self

    def _refuse_steps_that_outlast(self, within: str) -> None:
        """By the time the last step is reached, or answered, the first has left the window."""
        for place, step in enumerate(self.sequence):
            name = "within" if isinstance(step, NotStep) else "after_at_least"
            length = getattr(step, name)
            if length is not None and never_longer(within, length):
                raise refuse(
                    f"it is not shorter than the window of the sequence, {within}, so the sequence is never true",
                    "Make it shorter, or the window longer.",
                    *("sequence", place, name),
                )

    def _needs_zone(self) -> bool:
        return super()._needs_zone() or any(_step_needs_zone(step) for step in self.sequence)


def _step_needs_zone(step: Step | NotStep) -> bool:
    if isinstance(step, NotStep):
        return is_calendar(step.within) or step.not_.filter_has_dates
    return is_calendar(step.within) or is_calendar(step.after_at_least) or step.filter_has_dates


class Regularly(Filtered):
    model_config = published_as(
        "True when at least so many of the last periods hold a matching touchpoint. Periods are counted back from now.",
        {"regularly": "Order Completed", "at_least": 3, "of_last": 4, "period": "month"},
    )
    head: ClassVar = "regularly"

    regularly: Events
    at_least: Annotated[int, Field(ge=1)] = Field(description="In this many periods or more.")
    of_last: Annotated[int, Field(ge=1)] = Field(
        description="So many periods; at most 366 days, 104 weeks or 60 months."
    )
    period: Period = Field(description="A day is 24 hours, a week 7 such days; months are counted in the timezone.")
    timezone: Zone | None = Field(None, description="Where months are counted.")

    @model_validator(mode="after")
    def _periods_make_sense(self) -> Self:
        longest = PERIODS[self.period]
        if self.of_last > longest:
            raise refuse(f"it is more than {longest} periods", f"Ask for the last {longest} or fewer.", "of_last")
        if self.at_least > self.of_last:
            raise refuse("there are fewer periods than that", "Make it at most of_last.", "at_least")
        if self.timezone and self.period != "month" and not self.filter_has_dates:
            raise refuse("timezone has nothing to apply to", "Remove it; days and weeks are exact.", "timezone")
        return self


# ------------------------------------------------------------ what is worked out of it, and compared


class Sum(SumValue, Comparison):
    model_config = published_as(
        "True when the sum of a property over the matching touchpoints in the window satisfies the comparison.",
        {"sum": "total", "of": "Order Completed", "within": "365d", "gte": 500},
    )


class Avg(AvgValue, Comparison):
    model_config = published_as(
        "True when the average of a property, without rounding, satisfies the comparison.",
        {"avg": "total", "of": "Order Completed", "gt": 40},
    )


class Min(MinValue, Comparison):
    model_config = published_as(
        "True when the least number of a property satisfies the comparison.",
        {"min": "rating", "of": "Product Reviewed", "lte": 2},
    )


class Max(MaxValue, Comparison):
    model_config = published_as(
        "True when the greatest number of a property satisfies the comparison.",
        {"max": "total", "of": "Order Completed", "gt": {"trait": "largest_budget"}},
    )


class Distinct(DistinctValue, Comparison):
    model_config = published_as(
        "True when the number of different values of a property satisfies the comparison.",
        {"distinct": "touchpoint.channel", "of": "*", "within": "30d", "gte": 3},
    )


class FirstValue(FirstValueValue, Comparison):
    model_config = published_as(
        "True when the first value of a property satisfies the comparison.",
        {"first_value": "touchpoint.channel", "of": "*", "eq": "ads"},
    )


class LastValue(LastValueValue, Comparison):
    model_config = published_as(
        "True when the latest value of a property satisfies the comparison.",
        {"last_value": "renews_on", "of": "Subscription Renewed", "within_next": "30d"},
    )


class MostFrequent(MostFrequentValue, Comparison):
    model_config = published_as(
        "True when the most frequent value of a property satisfies the comparison; of a tie the latest counts.",
        {"most_frequent": "category", "of": "Product Viewed", "within": "90d", "in": ["serum", "cream"]},
    )


# ------------------------------------------------------------------------------------- what the customer is


class TraitIs(Comparison):
    """A trait that satisfies a comparison, has done so for a time, or changed a short time ago."""

    model_config = published_as(
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
    timezone: Zone | None = Field(None, description="Where dates begin and months are added.")

    def _needs_operator(self) -> bool:
        return self.held_for is None and self.changed_within is None

    @model_validator(mode="after")
    def _times_make_sense(self) -> Self:
        if self.held_for and self.changed_within and not self.operators:
            _refuse_contradiction(self.held_for, self.changed_within, "changed_within", "held_for")
        dated = is_calendar(self.held_for) or is_calendar(self.changed_within) or self.has_dates
        if self.timezone and not dated:
            raise refuse("timezone has nothing to apply to", "Remove it, or use a date operator.", "timezone")
        return self


class _Belonging(BaseModel):
    """Since when a customer has been in a segment, or at a stage."""

    for_at_least: Length | None = Field(None, description="Without a break for so long.")
    entered_within: Length | None = Field(None, description="Now, and entered less than this ago.")
    ever: Flag | None = Field(None, description="At some instant up to now.")
    timezone: Zone | None = Field(None, description="Where months are added.")

    @model_validator(mode="after")
    def _times_make_sense(self) -> Self:
        beside = next((name for name in ("for_at_least", "entered_within") if getattr(self, name) is not None), None)
        if self.ever and beside:
            raise refuse(f"ever has no {beside}", "Keep one of them.", beside)
        if self.for_at_least and self.entered_within:
            _refuse_contradiction(self.for_at_least, self.entered_within, "entered_within", "for_at_least")
        if self.timezone and not (is_calendar(self.for_at_least) or is_calendar(self.entered_within)):
            raise refuse("timezone has nothing to apply to", "Remove it; only mo and y need one.", "timezone")
        return self


def _refuse_contradiction(least: str, most: str, at: str, other: str) -> None:
    if never_longer(most, least):
        raise refuse("it can be neither that long nor that short", f"Make {at} longer than {other}.", at)


class InSegment(_Belonging):
    model_config = published_as(
        "True when the customer is in the segment now: for so long, since so short a time, or ever.",
        {"segment": "repeat-buyers"},
        {"segment": "repeat-buyers", "for_at_least": "30d"},
        {"segment": "trial", "ever": True},
    )
    head: ClassVar = "segment"

    segment: Key


class AtStage(_Belonging):
    model_config = published_as(
        "True when the customer's current stage is one of them: for so long, since so short a time, or ever.",
        {"stage": ["purchase", "post-purchase"], "journey": "six-stage"},
        {"stage": "consideration", "entered_within": "7d"},
    )
    head: ClassVar = "stage"

    stage: Keys
    journey: Key | None = Field(None, description="The journey's key; without it, the workspace's default journey.")


class Bucket(BaseModel):
    model_config = published_as(
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
    def _holds_someone(self) -> Self:
        if self.bucket[0] >= self.bucket[1]:
            raise refuse("nobody is in this share", "Write [first, last], such as [0, 50].", "bucket")
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
