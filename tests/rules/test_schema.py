"""The published schema describes what is accepted, and each example in it and in the page is a rule."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import TypeAdapter
from pydantic.json_schema import models_json_schema

from app.builtin import JOURNEYS, SEGMENTS
from app.rules import JourneyIn, Rule, SegmentIn, language, parse_journey, parse_rule, parse_segment, rule_to_json

PAGE = Path(__file__).parents[2] / "docs" / "rules.md"
EXAMPLES = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE.read_text(), re.DOTALL)]
SCHEMA: dict[str, Any] = TypeAdapter(Rule).json_schema()
VALIDATOR = Draft202012Validator(SCHEMA)
HEADS = ["All", "AnyOf", "Not", "Everyone", "Did", "TraitIs", "InSegment", "AtStage"]


@pytest.mark.parametrize("rule", EXAMPLES, ids=str)
def test_every_example_of_the_page_is_a_rule(rule: Any) -> None:
    assert rule_to_json(parse_rule(rule)) == rule
    VALIDATOR.validate(rule)


def test_the_page_shows_every_head_and_operator() -> None:
    text = PAGE.read_text()
    for model in HEADS:
        for field, info in getattr(language, model).model_fields.items():
            key = info.alias or field
            assert any(shown in text for shown in (f"`{key}`", f'"{key}"', f"{key}:")), key
    assert len(EXAMPLES) >= 10


@pytest.mark.parametrize("name", HEADS)
def test_every_node_has_title_description_and_example(name: str) -> None:
    node = SCHEMA["$defs"][name]
    assert node["title"]
    assert node["description"].endswith(".")
    assert node["additionalProperties"] is False
    for example in node["examples"]:
        parse_rule(example)
        VALIDATOR.validate(example)


def test_the_rule_is_one_of_its_heads_and_offers_no_null() -> None:
    assert len(SCHEMA["$defs"]["Rule"]["oneOf"]) == len(HEADS)
    assert '"null"' not in json.dumps(SCHEMA)


@pytest.mark.parametrize(
    "rule",
    [{}, {"did": 1}, {"did": "A", "x": 1}, {"all": []}, {"trait": "a", "eq": None}, {"all": [{"not": {"sum": "a"}}]}],
    ids=str,
)
def test_the_schema_refuses_too(rule: Any) -> None:
    assert not VALIDATOR.is_valid(rule)


def test_definitions_have_a_schema_and_examples() -> None:
    _, schema = models_json_schema([(SegmentIn, "validation"), (JourneyIn, "validation")])
    for name, parse in (("SegmentIn", parse_segment), ("JourneyIn", parse_journey)):
        for example in schema["$defs"][name]["examples"]:
            parse(example)
            Draft202012Validator({**schema, "$ref": f"#/$defs/{name}"}).validate(example)


def test_builtin_definitions_are_valid() -> None:
    for segment in SEGMENTS:
        VALIDATOR.validate(segment["rule"])
    for journey in JOURNEYS:
        for stage in journey["stages"]:
            VALIDATOR.validate(stage["rule"])
