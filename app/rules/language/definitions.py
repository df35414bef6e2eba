"""Definitions of segments, journeys and computed traits: their models, and functions that parse and serialize them.

As in :mod:`app.rules.language.nodes`, the models also produce the published JSON schema.
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
    """Return the nesting depth of objects and lists. It may recurse, because check_structure has limited the depth."""
    if isinstance(value, dict):
        return 1 + max(map(_nesting_levels, value.values()), default=0)
    return 1 + max(map(_nesting_levels, value), default=0) if isinstance(value, list) else 0


class _NamedDefinition(BaseModel):
    key: Key = Field(
        description="Name in rules and URLs: 1 to 64 lower-case letters and digits, separated by single _ or -."
    )
    name: Name = Field("", description="Display name. Default: the key.")

    @model_validator(mode="after")
    def _default_name_to_key(self) -> Self:
        if not self.name:
            self.name = self.key
        return self


class _VersionedDefinition(_NamedDefinition):
    """Base of segments, journeys and computed traits, of which every version is stored."""

    description: Annotated[str, StringConstraints(max_length=2_000)] = ""
    owner: Name = Field("", description="Person or team to ask about this definition.")
    public: bool = Field(False, description="Whether /v1/me may return the result of this definition to web pages.")
    note: Annotated[str, StringConstraints(max_length=500)] = Field(
        "", description="Reason for this change, stored in the change log."
    )


class SegmentIn(_VersionedDefinition):
    model_config = documented_config(
        "A segment: all customers for whom the rule is true now.",
        {
            "key": "repeat-buyers",
            "name": "Repeat buyers",
            "description": "Bought at least twice",
            "owner": "crm@example.com",
            "rule": {"did": "Order Completed", "at_least": 2},
            "note": "Require two orders instead of three",
        },
    )

    rule: Rule


class StageIn(_NamedDefinition):
    model_config = documented_config(
        "A stage of a journey. A customer is at the last stage of the journey whose rule is true.",
        {
            "key": "purchase",
            "name": "Purchase",
            "rule": {"did": "Order Completed"},
            "content": {"banner": "Thank you for your order"},
        },
    )

    rule: Rule
    content: dict[str, Any] | None = Field(
        None,
        description="Content for a web page, which /v1/me returns with the stage: at most 4 KB of JSON, 5 levels deep.",
    )

    @model_validator(mode="after")
    def _check_content_size(self) -> Self:
        if self.content is None:
            return self
        if _nesting_levels(self.content) > CONTENT_LEVELS_MAX:
            raise validation_error(
                f"the content nests deeper than {CONTENT_LEVELS_MAX} levels", "Use fewer levels.", "content"
            )
        if len(_encode(self.content)) > CONTENT_BYTES_MAX:
            raise validation_error(
                f"the content is larger than {CONTENT_BYTES_MAX} bytes",
                "Store a short key instead, and let the page look up the content.",
                "content",
            )
        return self


class JourneyIn(_VersionedDefinition):
    model_config = documented_config(
        "A journey: an ordered list of stages. A customer is at the last stage whose rule is true.",
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
                    f"two stages have the key `{key}`", "Give each stage a different key.", "stages", index, "key"
                )
        return self


class TraitIn(_VersionedDefinition):
    model_config = documented_config(
        "A computed trait: a value computed from touchpoints. Rules read it like any other trait; it takes precedence "
        "over a trait that messages set under the same name.",
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
    """Return the rule in ``data``, which is parsed JSON (numbers as ``int``, ``Decimal`` or ``float``).

    ``path`` is the JSON path of the rule in its document. Raises :class:`InvalidDefinition` with the path of the
    invalid node and a remedy.
    """
    return _parse(_rule_adapter.validate_python, data, path, "rule", limits)


def parse_value(data: object, path: str = "/value", limits: Limits | None = None) -> Value:
    """Return the value expression in parsed JSON; raise :class:`InvalidDefinition` if it is not valid."""
    return _parse(_value_adapter.validate_python, data, path, "value", limits)


def parse_segment(data: object, limits: Limits | None = None) -> SegmentIn:
    """Return the segment in parsed JSON; raise :class:`InvalidDefinition` if it is not valid."""
    return _parse(SegmentIn.model_validate, data, "", "segment_in", limits)


def parse_journey(data: object, limits: Limits | None = None) -> JourneyIn:
    """Return the journey in parsed JSON; raise :class:`InvalidDefinition` if it is not valid."""
    return _parse(JourneyIn.model_validate, data, "", "journey_in", limits)


def parse_trait(data: object, limits: Limits | None = None) -> TraitIn:
    """Return the computed trait in parsed JSON; raise :class:`InvalidDefinition` if it is not valid."""
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
"""(kind, head) of an object -> keys that it may have; :mod:`app.rules.language.validation` lists the kinds."""


def rule_to_json(rule: Rule) -> dict[str, Any]:
    """Return the rule as its author wrote it: parsed JSON, numbers as ``int`` or ``Decimal``, without defaults."""
    return _rule_adapter.dump_python(rule, by_alias=True, exclude_unset=True)  # type: ignore[no-any-return]


def value_to_json(value: Value) -> dict[str, Any]:
    """Return the value expression as its author wrote it."""
    return _value_adapter.dump_python(value, by_alias=True, exclude_unset=True)  # type: ignore[no-any-return]
