"""Tests of the JSON Schemas of a tracking plan: refused schemas, and violations of messages."""

from __future__ import annotations

import json
import time
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidDefinition
from app.tracking_plan.event_schema import NODES_MAX, SAMPLE_BYTES_MAX, SchemaCheck, build_sample

ORDER = {
    "type": "object",
    "required": ["total", "currency"],
    "properties": {
        "total": {"type": "number", "minimum": 0, "multipleOf": Decimal("0.01")},
        "currency": {"enum": ["EUR", "USD"]},
        "products": {"type": "array", "items": {"$ref": "#/$defs/product"}},
    },
    "additionalProperties": False,
    "$defs": {"product": {"type": "object", "required": ["sku"], "properties": {"sku": {"type": "string"}}}},
}


def list_violations(schema: Any, properties: str) -> dict[str, str]:
    return {
        violation.reason: violation.message for violation in SchemaCheck(schema).find_violations(properties.encode())
    }


def test_valid_properties_have_no_violations() -> None:
    assert list_violations(ORDER, '{"total":19.99,"currency":"EUR","products":[{"sku":"a"}]}') == {}
    assert list_violations(ORDER, '{"total":12345678901234567890.01,"currency":"USD"}') == {}


def test_reason_is_a_schema_pointer_without_sent_data() -> None:
    violations = list_violations(ORDER, '{"total":-1,"currency":"secret-1","secret-2":1,"products":[{"sku":"a"},{}]}')
    assert set(violations) == {
        "/properties/total/minimum",
        "/properties/currency/enum",
        "/additionalProperties",
        "/$defs/product/required/sku",
    }
    assert violations["/properties/total/minimum"] == "properties.total: the value is less than the minimum of 0"
    assert violations["/$defs/product/required/sku"].startswith("properties.products.1: ")
    assert "secret-1" not in str(violations)


def test_repeated_violation_is_reported_once() -> None:
    violations = list_violations({"properties": {"a": {"items": {"type": "string"}}}}, json.dumps({"a": [1] * 1000}))
    assert list(violations) == ["/properties/a/items/type"]


def test_formats_are_checked() -> None:
    violations = list_violations({"properties": {"mail": {"type": "string", "format": "email"}}}, '{"mail":"invalid"}')
    assert list(violations) == ["/properties/mail/format"]


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ({"properties": {"a": {"type": "text"}}}, "/schema/properties/a/type"),
        ({"properties": {"a": {"minimum": "1"}}}, "/schema/properties/a/minimum"),
        ({"properties": {"a": {"pattern": "(a+)+$("}}}, "/schema/properties/a/pattern"),
        ({"properties": {"a": {"pattern": "(?=a)b"}}}, "/schema/properties/a/pattern"),
        ({"properties": {"a": {"pattern": "(a)\\1"}}}, "/schema/properties/a/pattern"),
        ({"properties": {"a": {"pattern": "(a{1000}){1000}"}}}, "/schema/properties/a/pattern"),
        ({"properties": {"a": {"pattern": "a" * 501}}}, "/schema/properties/a/pattern"),
        ({"patternProperties": {"a" * 501: {}}}, "/schema/patternProperties/" + "a" * 501),
        ({"properties": {"a": {"format": "e-mail"}}}, "/schema/properties/a/format"),
        ({"$ref": "http://localhost:1/schema.json"}, "/schema/$ref"),
        ({"properties": {"a": {"$ref": "https://example.com/schema.json"}}}, "/schema/properties/a/$ref"),
        ({"allOf": [{"items": {"$ref": "file:///etc/passwd"}}]}, "/schema/allOf/0/items/$ref"),
        ({"$ref": "#/$defs/none"}, "/schema/$ref"),
        ({"$ref": "#"}, "/schema/$ref"),
        ({"$id": "https://example.com/x", "type": "object"}, "/schema/$id"),
        ({"properties": {"a": {"$dynamicRef": "#x"}}}, "/schema/properties/a/$dynamicRef"),
        ({"$schema": "https://example.com/meta"}, "/schema"),
        (
            {"$defs": {"a": {"properties": {"b": {"$ref": "#/$defs/a"}}}}, "$ref": "#/$defs/a"},
            "/schema/$ref/properties/b/$ref",
        ),
        ({"properties": {str(n): {"enum": ["x" * 100]} for n in range(400)}}, "/schema"),
    ],
)
def test_refused_schema_has_the_path_of_the_error(schema: Any, path: str) -> None:
    with pytest.raises(InvalidDefinition) as refused:
        SchemaCheck(schema)
    assert refused.value.path == path
    assert refused.value.remedy


def test_property_may_have_the_name_of_a_keyword() -> None:
    schema = {"properties": {"$ref": {"type": "string"}, "$id": {"const": {"$ref": "http://example.com"}}}}
    assert list_violations(schema, '{"$ref":1}') == {
        "/properties/$ref/type": "properties.$ref: " + 'the value is not of type "string"'
    }


def doubling(levels: int) -> dict[str, Any]:
    """Return a schema in which each level references the next level twice."""
    defs: dict[str, Any] = {f"d{level}": {"allOf": [{"$ref": f"#/$defs/d{level + 1}"}] * 2} for level in range(levels)}
    return {"$defs": {**defs, f"d{levels}": {"type": "object"}}, "$ref": "#/$defs/d0"}


def test_exponential_references_are_refused_quickly() -> None:
    SchemaCheck(doubling(5))
    began = time.monotonic()
    with pytest.raises(InvalidDefinition, match=f"Use at most {NODES_MAX}"):
        SchemaCheck(doubling(60))
    assert time.monotonic() - began < 1


@pytest.mark.parametrize("pattern", ["^(a+)+$", "(x+x+)+y", "^(a|a)*$", r"(\w+\s?)+$", "(.*a){20}"])
def test_backtracking_patterns_take_linear_time(pattern: str) -> None:
    check = SchemaCheck({"properties": {"a": {"pattern": pattern}}})
    began = time.monotonic()
    check.find_violations(json.dumps({"a": "a" * 30_000 + "!"}).encode())
    assert time.monotonic() - began < 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=300), JSON | st.text(max_size=3000), max_size=30))
def test_sample_is_json_and_bounded(properties: dict[str, Any]) -> None:
    sample = build_sample(json.dumps(properties).encode())
    assert len(sample) <= SAMPLE_BYTES_MAX
    assert json.loads(sample).keys() <= properties.keys()


def test_sample_contains_no_free_text() -> None:
    assert build_sample(b'{"rating":1,"text":{"body":"I am ill"}}') == b'{"rating":1}'
    assert json.loads(build_sample(json.dumps({"note": "x" * 5_000}).encode()))["note"].endswith("...")


def test_sample_replaces_text_by_its_length() -> None:
    properties = {
        "comment": "my card does not work",
        "who": "user@example.com",
        "deep": [{"n": "a b c d"}],
        "s": "on hold",
    }
    assert json.loads(build_sample(json.dumps(properties).encode())) == {
        "comment": "(text of 21 bytes)",
        "who": "(text of 16 bytes)",
        "deep": [{"n": "(text of 7 bytes)"}],
        "s": "on hold",
    }


def test_large_message_reports_only_the_first_violation() -> None:
    """The library computes all violations at once, one for each alternative and element, which would take seconds."""
    schema = {"properties": {"a": {"items": {"anyOf": [{"const": f"c{n}"} for n in range(400)]}}}}
    (only,) = SchemaCheck(schema).find_violations(json.dumps({"a": list(range(2_000))}).encode())
    assert only.reason == "/properties/a/items/anyOf"


def test_reason_length_is_bounded() -> None:
    long = ["x" * 5_000 + str(n) for n in range(2)]
    reasons = [violation.reason for violation in SchemaCheck({"required": long}).find_violations(b"{}")]
    assert len(set(reasons)) == 2
    assert all(len(reason) < 350 for reason in reasons)


KEYWORDS = st.sampled_from(
    ["type", "properties", "items", "allOf", "$ref", "pattern", "enum", "required", "minimum", "not", "$defs", "format"]
)


@given(
    st.recursive(JSON, lambda inner: st.dictionaries(KEYWORDS | st.text(max_size=3), inner, max_size=4), max_leaves=20),
    st.dictionaries(st.text(max_size=5), JSON, max_size=4),
)
def test_any_schema_is_refused_or_validates(schema: Any, properties: dict[str, Any]) -> None:
    if not isinstance(schema, dict):
        return
    try:
        check = SchemaCheck(schema)
    except InvalidDefinition as refused:
        path = refused.path
        assert path.startswith("/schema")
        return
    for violation in check.find_violations(json.dumps(properties).encode()):
        assert violation.reason.startswith("/")
        assert len(violation.message) <= 300
