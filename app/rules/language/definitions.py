"""What is defined, as data: segments, journeys and computed traits, and how these and their rules are read and written.

As in :mod:`app.rules.language.nodes` the models are the published schema too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final, Self, TypeVar

import msgspec
from pydantic import BaseModel, Field, StringConstraints, TypeAdapter, ValidationError, model_validator

from app.config import Limits
from app.rules.language.comparison import Comparison, published_as
from app.rules.language.expressions import VALUES, Hours, TraitOperand, Value
from app.rules.language.fields import Key
from app.rules.language.nodes import RULES, NotStep, PlainDid, Rule, Step
from app.rules.language.validation import as_invalid_definition, inspect, refuse

Name = Annotated[str, StringConstraints(max_length=200)]

CONTENT_BYTES_MAX: Final = 4_096
CONTENT_LEVELS_MAX: Final = 5

_encode: Final = msgspec.json.Encoder(decimal_format="number").encode


def _levels(value: object) -> int:
    """Of objects and lists in one another; what is read here is bounded by :func:`inspect`."""
    if isinstance(value, dict):
        return 1 + max(map(_levels, value.values()), default=0)
    return 1 + max(map(_levels, value), default=0) if isinstance(value, list) else 0


class _Named(BaseModel):
    key: Key = Field(description="What it is called in rules and URLs; lower-case, 1 to 64 characters.")
    name: Name = Field("", description="What people call it; the key, when left out.")

    @model_validator(mode="after")
    def _name_after_key(self) -> Self:
        if not self.name:
            self.name = self.key
        return self


class _Kept(_Named):
    """What is kept, version by version."""

    description: Annotated[str, StringConstraints(max_length=2_000)] = ""
    owner: Name = Field("", description="Whom to ask about it.")
    public: bool = Field(False, description="Whether pages may be shown what it says of their visitor, by /v1/me.")
    note: Annotated[str, StringConstraints(max_length=500)] = Field(
        "", description="Why this change was made; kept in the change log."
    )


class SegmentIn(_Kept):
    model_config = published_as(
        "A segment: everyone for whom the rule is true now.",
        {
            "key": "repeat-buyers",
            "name": "Repeat buyers",
            "description": "Bought at least twice",
            "owner": "crm@example.com",
            "rule": {"did": "Order Completed", "at_least": 2},
            "note": "Two orders instead of three",
        },
    )

    rule: Rule


class StageIn(_Named):
    model_config = published_as(
        "A stage of a journey, entered when its rule is true.",
        {
            "key": "purchase",
            "name": "Purchase",
            "rule": {"did": "Order Completed"},
            "content": {"banner": "Thank you for your order"},
        },
    )

    rule: Rule
    content: dict[str, Any] | None = Field(
        None, description="Hints for a page, shown by /v1/me with the stage: at most 4 KB of JSON, 5 levels deep."
    )

    @model_validator(mode="after")
    def _little_content(self) -> Self:
        if self.content is None:
            return self
        if _levels(self.content) > CONTENT_LEVELS_MAX:
            raise refuse(f"the content nests deeper than {CONTENT_LEVELS_MAX} levels", "Make it flatter.", "content")
        if len(_encode(self.content)) > CONTENT_BYTES_MAX:
            raise refuse(
                f"the content is larger than {CONTENT_BYTES_MAX} bytes", "Give a key that the page looks up.", "content"
            )
        return self


class JourneyIn(_Kept):
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

    stages: list[StageIn] = Field(min_length=1, max_length=50)

    @model_validator(mode="after")
    def _different_stages(self) -> Self:
        keys = [stage.key for stage in self.stages]
        for index, key in enumerate(keys):
            if key in keys[:index]:
                raise refuse(f"there are two stages {key}", "Give each stage a key of its own.", "stages", index, "key")
        return self


class TraitIn(_Kept):
    model_config = published_as(
        "A computed trait: read like any trait, and hides a declared one of the same name as its key.",
        {
            "key": "average_order",
            "name": "Average order",
            "description": "Average total of the orders of a year",
            "owner": "crm@example.com",
            "value": {"avg": "total", "of": "Order Completed", "within": "365d"},
        },
    )

    value: Value


# ------------------------------------------------------------------------------------------------ reading

_rules: Final[TypeAdapter[Rule]] = TypeAdapter(Rule)
_values: Final[TypeAdapter[Value]] = TypeAdapter(Value)
_Read = TypeVar("_Read")


def parse_rule(data: object, path: str = "/rule", limits: Limits | None = None) -> Rule:
    """One rule from parsed JSON (numbers ``int``, ``Decimal`` or ``float``); ``path`` is where it stands.

    Raises :class:`InvalidDefinition` with the path of the offending node and the remedy.
    """
    return _read(_rules.validate_python, data, path, "rule", limits)


def parse_value(data: object, path: str = "/value", limits: Limits | None = None) -> Value:
    """One value expression from parsed JSON; raises :class:`InvalidDefinition`."""
    return _read(_values.validate_python, data, path, "value", limits)


def parse_segment(data: object, limits: Limits | None = None) -> SegmentIn:
    """A segment definition from parsed JSON; raises :class:`InvalidDefinition`."""
    return _read(SegmentIn.model_validate, data, "", "segment_in", limits)


def parse_journey(data: object, limits: Limits | None = None) -> JourneyIn:
    """A journey definition from parsed JSON; raises :class:`InvalidDefinition`."""
    return _read(JourneyIn.model_validate, data, "", "journey_in", limits)


def parse_trait(data: object, limits: Limits | None = None) -> TraitIn:
    """The definition of a computed trait from parsed JSON; raises :class:`InvalidDefinition`."""
    return _read(TraitIn.model_validate, data, "", "trait_in", limits)


def _read(validate: Callable[[Any], _Read], data: object, path: str, kind: str, limits: Limits | None) -> _Read:
    inspect(data, path, kind, limits or Limits.model_construct())
    try:
        return validate(data)
    except ValidationError as error:
        raise as_invalid_definition(error, path, kind, _KEYS) from None


def _keys(model: type[BaseModel]) -> tuple[str, ...]:
    return tuple(field.alias or name for name, field in model.model_fields.items())


_KEYS: Final = {
    **{("rule", model.head): _keys(model) for model in RULES},  # type: ignore[attr-defined]
    **{("value", model.head): _keys(model) for model in VALUES},  # type: ignore[attr-defined]
    ("reading", "trait"): _keys(TraitOperand),
    ("step", "did"): _keys(Step),
    ("step", "not"): _keys(NotStep),
    ("plain_did", "did"): _keys(PlainDid),
    ("where_value", "comparison"): _keys(Comparison),
    ("during", "hours"): _keys(Hours),
    ("segment_in", ""): _keys(SegmentIn),
    ("journey_in", ""): _keys(JourneyIn),
    ("stage_in", ""): _keys(StageIn),
    ("trait_in", ""): _keys(TraitIn),
}
"""The keys that an object may have, by its kind and head; see :mod:`app.rules.language.validation`."""


def rule_to_json(rule: Rule) -> dict[str, Any]:
    """The rule as its author wrote it: parsed JSON, numbers ``int`` or ``Decimal``, no defaults filled in."""
    return _rules.dump_python(rule, by_alias=True, exclude_unset=True)  # type: ignore[no-any-return]


def value_to_json(value: Value) -> dict[str, Any]:
    """The value expression as its author wrote it."""
    return _values.dump_python(value, by_alias=True, exclude_unset=True)  # type: ignore[no-any-return]
