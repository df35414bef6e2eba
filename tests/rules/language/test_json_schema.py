"""Tests of the published JSON schema: it accepts the same rules as the parser, and all examples are valid."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import TypeAdapter
from pydantic.json_schema import models_json_schema

from app.registry.default_definitions import JOURNEYS, SEGMENTS, TRAITS
from app.rules.language.comparison import Comparison
from app.rules.language.definitions import (
    JourneyIn,
    SegmentIn,
    TraitIn,
    parse_journey,
    parse_rule,
    parse_segment,
    parse_trait,
    parse_value,
    rule_to_json,
    value_to_json,
)
from app.rules.language.expressions import VALUES, Hours, TraitOperand, Value, models_of
from app.rules.language.nodes import Rule
from app.rules.language.touchpoint_nodes import NotStep, PlainDid, Step
from app.rules.language.validation import HEADS, VALUE_HEADS

PAGE = Path(__file__).parents[3] / "docs" / "rules.md"
EXAMPLES = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE.read_text(), re.DOTALL)]
SCHEMA: dict[str, Any] = TypeAdapter(Rule).json_schema()
VALIDATOR = Draft202012Validator(SCHEMA)
VALUE_VALIDATOR = Draft202012Validator(TypeAdapter(Value).json_schema())
RULES: tuple[Any, ...] = tuple(models_of(Rule))
VALUE_MODELS: tuple[Any, ...] = VALUES
PARTS: tuple[Any, ...] = (Comparison, Hours, TraitOperand, Step, NotStep, PlainDid)
MODELS = (*RULES, *VALUE_MODELS, *PARTS)


def examples_of(model: Any) -> list[Any]:
    examples: list[Any] = SCHEMA["$defs"][model.__name__]["examples"]
    return examples


def embed_in_rule(model: Any, example: Any) -> Any:
    """Return a rule that contains the example."""
    if model in RULES:
        return example
    if model is Comparison:
        return {"did": "A", "where": {"p": example}}
    if model is Hours:
        return {"did": "A", "during": example}
    if model in (Step, NotStep):
        return {"sequence": [{"did": "A"}, example]}
    if model is PlainDid:
        return {"sequence": [{"did": "A"}, {"not": example, "within": "1h"}]}
    return {"trait": "p", "gt": example}


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_rules_page_examples_are_valid(example: Any) -> None:
    if "key" in example:
        assert parse_trait(example)
    elif set(example) & set(HEADS) and (
        not set(example) & set(VALUE_HEADS) or set(example) & set(Comparison.model_fields)
    ):
        assert rule_to_json(parse_rule(example)) == example
        VALIDATOR.validate(example)
    else:
        assert value_to_json(parse_value(example)) == example
        VALUE_VALIDATOR.validate(example)


def test_rules_page_mentions_every_key() -> None:
    text = PAGE.read_text()
    for model in MODELS:
        for field, info in model.model_fields.items():
            key = info.alias or field
            assert any(spelling in text for spelling in (f"`{key}`", f'"{key}"', f"{key}:")), key
    assert len(EXAMPLES) >= 10


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_schema_of_node_has_title_description_and_example(model: Any) -> None:
    node = SCHEMA["$defs"][model.__name__]
    assert node["title"]
    assert node["description"].endswith(".")
    assert node["additionalProperties"] is False
    assert node["examples"]
    for example in node["examples"]:
        rule = embed_in_rule(model, example)
        assert rule_to_json(parse_rule(rule)) == rule
        VALIDATOR.validate(rule)


def test_schema_definitions_are_described_and_references_resolve() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert {model.__name__ for model in MODELS} | {"Rule", "Value", "Reading"} == set(SCHEMA["$defs"])
    assert all(part["description"] for part in SCHEMA["$defs"].values())
    for name in re.findall(r'"#/\$defs/(\w+)"', json.dumps(SCHEMA)):
        assert name in SCHEMA["$defs"]


def test_schema_unions_match_heads_and_exclude_null() -> None:
    assert [model.head for model in RULES] == list(HEADS)
    assert [model.head for model in VALUE_MODELS] == list(VALUE_HEADS)
    assert len(SCHEMA["$defs"]["Rule"]["oneOf"]) == len(HEADS)
    assert len(SCHEMA["$defs"]["Value"]["oneOf"]) == len(VALUE_HEADS)
    assert '"null"' not in json.dumps(SCHEMA)


@pytest.mark.parametrize("value", [value for model in VALUES for value in examples_of(model)], ids=str)
def test_value_expression_is_serialized_as_written_in_every_position(value: Any) -> None:
    assert value_to_json(parse_value(value)) == value
    VALUE_VALIDATOR.validate(value)
    for rule in (
        {"trait": "p", "before_date": value},
        {"did": "A", "where": {"p": {"ne": value}}},
        {"sum": "p", "of": "A", "lte": {"count": "B", "where": {"q": {"eq": value}}}},
    ):
        assert rule_to_json(parse_rule(rule)) == rule
        VALIDATOR.validate(rule)


@pytest.mark.parametrize(
    "rule",
    [
        {},
        {"did": 1},
        {"did": "A", "x": 1},
        {"all": []},
        {"trait": "a", "eq": None},
        {"all": [{"not": {"sum": "a"}}]},
        {"count": "A"},
        {"did": "A", "during": "tomorrow"},
        {"did": "A", "within": "1 mo"},
        {"trait": "a", "eq": {"did": "A"}},
        {"trait": "a", "in": [{"trait": "b"}]},
        {"trait": "a", "gt": {"sum": "p", "of": "A", "gte": 1}},
        {"sequence": [{"did": "A"}]},
        {"sequence": [{"did": "A"}, {"not": {"did": "B"}}]},
        {"regularly": "A", "at_least": 1, "of_last": 2, "period": "year"},
        {"bucket": [0, 101]},
        {"segment": "a", "ever": False},
    ],
    ids=str,
)
def test_schema_rejects_invalid_rule(rule: Any) -> None:
    assert not VALIDATOR.is_valid(rule)


def test_definition_examples_match_their_schema() -> None:
    _, schema = models_json_schema([(model, "validation") for model in (SegmentIn, JourneyIn, TraitIn)])
    for name, parse in (("SegmentIn", parse_segment), ("JourneyIn", parse_journey), ("TraitIn", parse_trait)):
        for example in schema["$defs"][name]["examples"]:
            parse(example)
            Draft202012Validator({**schema, "$ref": f"#/$defs/{name}"}).validate(example)


def test_default_definitions_match_schema() -> None:
    for segment in SEGMENTS:
        VALIDATOR.validate(segment["rule"])
    for journey in JOURNEYS:
        for stage in journey["stages"]:
            VALIDATOR.validate(stage["rule"])
    for trait in TRAITS:
        VALUE_VALIDATOR.validate(trait["value"])
