"""What is defined, as data: segments, journeys and computed traits, and how these and their rules are read and written.

As in :mod:`app.rules.language.nodes` the models are the published schema too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final, Self, TypeVar

import msgspec
from pydantic import BaseModel, Field, StringConstraints, TypeAdapter, ValidationError, model_validator

from app.config import Limits
from app.rules.language.comparison import Comparison, documented_config
from app.rules.language.expressions import VALUES, Hours, TraitOperand, Value
from app.rules.language.fields import Key
from app.rules.language.nodes import RULES, Rule
from app.rules.language.touchpoint_nodes import NotStep, PlainDid, Step
from app.rules.language.validation import check_structure, to_invalid_definition, validation_error

Name = Annotated[str, StringConstraints(max_length=200)]

CONTENT_BYTES_MAX: Final = 4_096
CONTENT_LEVELS_MAX: Final = 5

_encode: Final = msgspec.json.Encoder(decimal_format="number").encode


def _nesting_levels(value: object) -> int:
    """Return how deep objects and lists nest; :func:`check_structure` bounds the recursion."""
    if isinstance(value, dict):
        return 1 + max(map(_nesting_levels, value.values()), default=0)
    return 1 + max(map(_nesting_levels, value), default=0) if isinstance(value, list) else 0


class _NamedDefinition(BaseModel):
    key: Key = Field(description="What it is called in rules and URLs; lower-case, 1 to 64 characters.")
    name: Name = Field("", description="What people call it; the key, when left out.")

    @model_validator(mode="after")
    def _default_name_to_key(self) -> Self:
        if not self.name:
            self.name = self.key
        return self


class _VersionedDefinition(_NamedDefinition):
    """What is kept, version by version."""

    description: Annotated[str, StringConstraints(max_length=2_000)] = ""
    owner: Name = Field("", description="Whom to ask about it.")
    public: bool = Field(False, description="Whether pages may be shown what it says of their visitor, by /v1/me.")
    note: Annotated[str, StringConstraints(max_length=500)] = Field(
        "", description="Why this change was made; kept in the change log."
    )


class SegmentIn(_VersionedDefinition):
    model_config = documented_config(
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


class StageIn(_NamedDefinition):
    model_config = documented_config(
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
    def _check_content_size(self) -> Self:
        if self.content is None:
            return self
        if _nesting_levels(self.content) > CONTENT_LEVELS_MAX:
            raise validation_error(
                f"the content nests deeper than {CONTENT_LEVELS_MAX} levels", "Make it flatter.", "content"
            )
        if len(_encode(self.content)) > CONTENT_BYTES_MAX:
            raise validation_error(
                f"the content is larger than {CONTENT_BYTES_MAX} bytes", "Give a key that the page looks up.", "content"
            )
        return self


class JourneyIn(_VersionedDefinition):
    model_config = documented_config(
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
    def _check_unique_stage_keys(self) -> Self:
        keys = [stage.key for stage in self.stages]
        for index, key in enumerate(keys):
            if key in keys[:index]:
                raise validation_error(
                    f"there are two stages {key}", "Give each stage a key of its own.", "stages", index, "key"
                )
        return self


class TraitIn(_VersionedDefinition):
    model_config = documented_config(
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

_rule_adapter: Final[TypeAdapter[Rule]] = TypeAdapter(Rule)
_value_adapter: Final[TypeAdapter[Value]] = TypeAdapter(Value)
_Parsed = TypeVar("_Parsed")


def parse_rule(data: object, path: str = "/rule", limits: Limits | None = None) -> Rule:
    """One rule from parsed JSON (numbers ``int``, ``Decimal`` or ``float``); ``path`` is where it stands.

    Raises :class:`InvalidDefinition` with the path of the offending node and the remedy.
    """
    return _parse(_rule_adapter.validate_python, data, path, "rule", limits)


def parse_value(data: object, path: str = "/value", limits: Limits | None = None) -> Value:
    """One value expression from parsed JSON; raises :class:`InvalidDefinition`."""
    return _parse(_value_adapter.validate_python, data, path, "value", limits)


def parse_segment(data: object, limits: Limits | None = None) -> SegmentIn:
    """A segment definition from parsed JSON; raises :class:`InvalidDefinition`."""
    return _parse(SegmentIn.model_validate, data, "", "segment_in", limits)


def parse_journey(data: object, limits: Limits | None = None) -> JourneyIn:
    """A journey definition from parsed JSON; raises :class:`InvalidDefinition`."""
    return _parse(JourneyIn.model_validate, data, "", "journey_in", limits)


def parse_trait(data: object, limits: Limits | None = None) -> TraitIn:
    """The definition of a computed trait from parsed JSON; raises :class:`InvalidDefinition`."""
    return _parse(TraitIn.model_validate, data, "", "trait_in", limits)


def _parse(validate: Callable[[Any], _Parsed], data: object, path: str, kind: str, limits: Limits | None) -> _Parsed:
    check_structure(data, path, kind, limits or Limits.model_construct())
    try:
        return validate(data)
    except ValidationError as error:
        raise to_invalid_definition(error, path, kind, _ACCEPTED_KEYS) from None


def _accepted_keys(model: type[BaseModel]) -> tuple[str, ...]:
    return tuple(field.alias or name for name, field in model.model_fields.items())


_ACCEPTED_KEYS: Final = {
    **{("rule", model.head): _accepted_keys(model) for model in RULES},  # type: ignore[attr-defined]
    **{("value", model.head): _accepted_keys(model) for model in VALUES},  # type: ignore[attr-defined]
    ("reading", "trait"): _accepted_keys(TraitOperand),
    ("step", "did"): _accepted_keys(Step),
    ("step", "not"): _accepted_keys(NotStep),
    ("plain_did", "did"): _accepted_keys(PlainDid),
    ("where_value", "comparison"): _accepted_keys(Comparison),
    ("during", "hours"): _accepted_keys(Hours),
    ("segment_in", ""): _accepted_keys(SegmentIn),
    ("journey_in", ""): _accepted_keys(JourneyIn),
    ("stage_in", ""): _accepted_keys(StageIn),
    ("trait_in", ""): _accepted_keys(TraitIn),
}
"""The keys that an object may have, by its kind and head; see :mod:`app.rules.language.validation`."""


def rule_to_json(rule: Rule) -> dict[str, Any]:
    """The rule as its author wrote it: parsed JSON, numbers ``int`` or ``Decimal``, no defaults filled in."""
    return _rule_adapter.dump_python(rule, by_alias=True, exclude_unset=True)  # type: ignore[no-any-return]


def value_to_json(value: Value) -> dict[str, Any]:
    """The value expression as its author wrote it."""
    return _value_adapter.dump_python(value, by_alias=True, exclude_unset=True)  # type: ignore[no-any-return]
