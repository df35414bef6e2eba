"""The rule language as data: one model for each head, and how definitions are read.

The models are the published schema too, so each carries a title, a description and an example. They check what
can be seen in one node; what needs other definitions (unknown segments, cycles) is checked when a set of
definitions is compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Annotated, Any, ClassVar, Final, Self, TypeVar

from pydantic import (
    BaseModel,
    Discriminator,
    Field,
    PlainValidator,
    StringConstraints,
    Tag,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from typing_extensions import TypeAliasType

from app.config import Limits
from app.rules import lengths
from app.rules.comparison import SCALAR_SCHEMA, Comparison, Flag, Scalar, published_as
from app.rules.refusal import HEADS, as_invalid_definition, inspect, refuse, refuse_later
from app.rules.words import Channels, Count, Events, Key, Keys, Length, Moment, Path, Sources, Zone

# ------------------------------------------------------------------------------------------------ nodes


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


def _where_kind(value: Any) -> str:
    return "comparison" if isinstance(value, dict | Comparison) else "value"


def _where_scalar(value: Any) -> Any:
    if isinstance(value, list):
        raise refuse("a plain list is no comparison", 'Say which you mean: {"in": [...]} or {"contains": ...}.')
    return value


WhereValue = Annotated[
    Annotated[Comparison, Tag("comparison")]
    | Annotated[Scalar, PlainValidator(_where_scalar), WithJsonSchema(SCALAR_SCHEMA), Tag("value")],
    Discriminator(_where_kind),
]


class Did(BaseModel):
    """What a customer did, how often, in which window."""

    model_config = published_as(
        "True when the number of matching touchpoints in the window satisfies the count (at least 1 unless said).",
        {"did": "Order Completed", "where": {"total": {"gte": 50}}, "at_least": 2, "within": "90d"},
        {"did": ["Email Opened", "Email Link Clicked"], "channel": "email", "from": "1997-01-01", "to": "1997-10-01"},
    )
    head: ClassVar = "did"

    did: Events
    where: dict[Path, WhereValue] | None = Field(
        None, min_length=1, description="Property path to a value or a comparison; context. and traits. reach beside."
    )
    channel: Channels | None = None
    source: Sources | None = None
    at_least: Count | None = Field(None, description="This many or more.")
    at_most: Count | None = Field(None, description="This many or fewer, none too.")
    exactly: Count | None = Field(None, description="Just this many.")
    between: list[Count] | None = Field(None, min_length=2, max_length=2, description="[lowest, highest], both inside.")
    within: Length | None = Field(None, description="Younger than this: t <= now < t + length.")
    before: Length | None = Field(None, description="At least this old: t + length <= now.")
    from_: Moment | None = Field(None, alias="from", description="Not before this instant or date.")
    to: Moment | None = Field(None, description="Before this instant or date.")
    timezone: Zone | None = Field(None, description="Where the dates of from and to begin.")

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
    def _make_sense_together(self) -> Self:
        if isinstance(self.did, list) and "*" in self.did:
            raise refuse('"*" is any event already', 'Write "did": "*".', "did")
        self._check_count()
        self._check_window()
        return self

    def _check_count(self) -> None:
        given = [name for name in ("at_least", "at_most", "exactly", "between") if getattr(self, name) is not None]
        if len(given) > 1:
            raise refuse("there is more than one count", "Keep one of at_least, at_most, exactly, between.", given[1])
        if self.at_least == 0:
            raise refuse("at_least 0 is always true", "Ask for at least 1, or remove the node.", "at_least")
        if self.between is not None and self.between[0] > self.between[1]:
            raise refuse("the lower bound is above the upper one", "Write [lowest, highest].", "between")

    def _check_window(self) -> None:
        if self.within and self.before and lengths.length(self.before) >= lengths.length(self.within):
            raise refuse("no touchpoint is both that old and that young", "Make before shorter than within.", "before")
        bounds = {name: lengths.moment(text) for name, text in (("from", self.from_), ("to", self.to)) if text}
        dates = [name for name, bound in bounds.items() if isinstance(bound, date)]
        if self.timezone and not dates:
            raise refuse("timezone has no date to apply to", "Remove it.", "timezone")
        if len(bounds) == 2:
            self._check_range(bounds["from"], bounds["to"])
        if dates and not self.timezone and (self.within or self.before):
            raise refuse_later(
                "a date in the customer's own timezone beside within or before",
                "Give an instant with its offset, or a timezone.",
                dates[0],
            )

    def _check_range(self, start: int | date, end: int | date) -> None:
        if isinstance(start, date) and isinstance(end, date):
            first, last = lengths.utc_midnight(start), lengths.utc_midnight(end)
        else:
            zone = self.timezone or "UTC"
            first, last = (
                lengths.first_instant(bound, zone) if isinstance(bound, date) else bound for bound in (start, end)
            )
        if first >= last:
            raise refuse("the window ends before it begins", "Make to later than from; to itself is outside.", "to")
        if last - first > lengths.LONGEST:
            raise refuse("the window is longer than 100 years", "Bring from and to closer.", "to")


class TraitIs(Comparison):
    """A trait that satisfies a comparison."""

    model_config = published_as(
        "True when the current value of the trait satisfies the comparison.",
        {"trait": "plan", "in": ["pro", "team"]},
        {"trait": "address.city", "eq": "lisboa", "ignore_case": True},
    )
    head: ClassVar = "trait"

    trait: Path = Field(description="Its name; one with dots is first the exact name, else a path.")


class InSegment(BaseModel):
    model_config = published_as("True when the customer is in the segment now.", {"segment": "repeat-buyers"})
    head: ClassVar = "segment"

    segment: Key


class AtStage(BaseModel):
    model_config = published_as(
        "True when the customer's current stage is one of them.",
        {"stage": ["purchase", "post-purchase"], "journey": "six-stage"},
    )
    head: ClassVar = "stage"

    stage: Keys
    journey: Key | None = Field(None, description="The journey's key; without it, the workspace's default journey.")


def _head_of(node: Any) -> str | None:
    if isinstance(node, BaseModel):
        return getattr(type(node), "head", None)
    return next((head for head in HEADS if head in node), None) if isinstance(node, dict) else None


Rule = TypeAliasType(
    "Rule",
    Annotated[
        Annotated[All, Tag("all")]
        | Annotated[AnyOf, Tag("any")]
        | Annotated[Not, Tag("not")]
        | Annotated[Everyone, Tag("everyone")]
        | Annotated[Did, Tag("did")]
        | Annotated[TraitIs, Tag("trait")]
        | Annotated[InSegment, Tag("segment")]
        | Annotated[AtStage, Tag("stage")],
        Discriminator(_head_of),
    ],
)
"""A node of the language. Exactly one head key says which."""

for _model in (All, AnyOf, Not):
    _model.model_rebuild()


# ------------------------------------------------------------------------------------------ definitions

Name = Annotated[str, StringConstraints(max_length=200)]


class _Named(BaseModel):
    key: Key = Field(description="What it is called in rules and URLs; lower-case, 1 to 64 characters.")
    name: Name = Field("", description="What people call it; the key, when left out.")

    @model_validator(mode="after")
    def _name_after_key(self) -> Self:
        if not self.name:
            self.name = self.key
        return self


class SegmentIn(_Named):
    model_config = published_as(
        "A segment: everyone for whom the rule is true now.",
        {
            "key": "repeat-buyers",
            "name": "Repeat buyers",
            "description": "Bought at least twice",
            "owner": "crm@example.com",
            "rule": {"did": "Order Completed", "at_least": 2},
        },
    )

    description: Annotated[str, StringConstraints(max_length=2_000)] = ""
    owner: Name = Field("", description="Whom to ask about it.")
    rule: Rule


class StageIn(_Named):
    model_config = published_as(
        "A stage of a journey, entered when its rule is true.",
        {"key": "purchase", "name": "Purchase", "rule": {"did": "Order Completed"}},
    )

    rule: Rule


class JourneyIn(_Named):
    model_config = published_as(
        "A journey: stages in order. A customer is at the last one whose rule is true.",
        {
            "key": "trial",
            "name": "Trial",
            "stages": [
                {"key": "started", "name": "Started", "rule": {"did": "Trial Started"}},
                {"key": "paid", "name": "Paid", "rule": {"did": "Order Completed"}},
            ],
        },
    )

    description: Annotated[str, StringConstraints(max_length=2_000)] = ""
    owner: Name = Field("", description="Whom to ask about it.")
    stages: list[StageIn] = Field(min_length=1, max_length=50)

    @model_validator(mode="after")
    def _different_stages(self) -> Self:
        keys = [stage.key for stage in self.stages]
        for index, key in enumerate(keys):
            if key in keys[:index]:
                raise refuse(f"there are two stages {key}", "Give each stage a key of its own.", "stages", index, "key")
        return self


# ------------------------------------------------------------------------------------------------ reading

_rules: Final[TypeAdapter[Rule]] = TypeAdapter(Rule)
_Read = TypeVar("_Read")


def parse_rule(data: object, path: str = "/rule", limits: Limits | None = None) -> Rule:
    """One rule from parsed JSON (numbers ``int``, ``Decimal`` or ``float``); ``path`` is where it stands.

    Raises :class:`InvalidDefinition` with the path of the offending node and the remedy.
    """
    return _read(_rules.validate_python, data, path, "rule", limits)


def parse_segment(data: object, limits: Limits | None = None) -> SegmentIn:
    """A segment definition from parsed JSON; raises :class:`InvalidDefinition`."""
    return _read(SegmentIn.model_validate, data, "", "segment", limits)


def parse_journey(data: object, limits: Limits | None = None) -> JourneyIn:
    """A journey definition from parsed JSON; raises :class:`InvalidDefinition`."""
    return _read(JourneyIn.model_validate, data, "", "journey", limits)


def _read(validate: Callable[[Any], _Read], data: object, path: str, kind: str, limits: Limits | None) -> _Read:
    inspect(data, path, kind, limits or Limits.model_construct())
    try:
        return validate(data)
    except ValidationError as error:
        raise as_invalid_definition(error, path, kind) from None


def rule_to_json(rule: Rule) -> dict[str, Any]:
    """The rule as its author wrote it: parsed JSON, numbers ``int`` or ``Decimal``, no defaults filled in."""
    return _rules.dump_python(rule, by_alias=True, exclude_unset=True)  # type: ignore[no-any-return]
