"""OpenAPI document: committed, valid, complete, and with an example in every schema."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from pydantic import TypeAdapter
from referencing import Registry, Resource

from app.api.openapi_document import VENDOR_TAGS
from app.openapi import OPENAPI_FILE, PAGE_FILE, render_documents
from app.rules.language.nodes import RULES, Rule
from app.rules.language.validation import HEADS
from tests.support.running_app import RunningApp, track

RENDERED = render_documents()
DOCUMENT: dict[str, Any] = json.loads(RENDERED[OPENAPI_FILE])
OPERATIONS = [
    (path, method, operation) for path, methods in DOCUMENT["paths"].items() for method, operation in methods.items()
]

RULE_LANGUAGE: dict[str, Any] = TypeAdapter(Rule).json_schema()


@pytest.mark.parametrize("file", RENDERED, ids=lambda file: file.name)
def test_committed_documents_are_up_to_date(file: Path) -> None:
    assert file.read_text(encoding="utf-8") == RENDERED[file], "run `make openapi`"


def test_document_is_valid() -> None:
    assert DOCUMENT["openapi"].startswith("3.1")
    validate(DOCUMENT)


def test_every_operation_has_id_summary_tags_and_security() -> None:
    names = [operation["operationId"] for _, _, operation in OPERATIONS]
    assert len(set(names)) == len(names)
    for path, method, operation in OPERATIONS:
        assert operation["summary"], (path, method)
        assert operation["tags"], (path, method)
        if operation["tags"] != ["operations"]:
            assert "security" in operation, (path, method)
        for parameter in operation.get("parameters", []):
            assert parameter["schema"], (path, parameter["name"])
    assert "HTTPValidationError" not in json.dumps(DOCUMENT)


def schema(name: str) -> Draft202012Validator:
    root = Resource.from_contents({"$schema": "https://json-schema.org/draft/2020-12/schema", **DOCUMENT})
    return Draft202012Validator(
        {"$ref": f"urn:segue#/components/schemas/{name}"}, registry=Registry().with_resource("urn:segue", root)
    )


@pytest.mark.parametrize("name", sorted(DOCUMENT["components"]["schemas"]))
def test_every_schema_has_valid_examples(name: str) -> None:
    shape = DOCUMENT["components"]["schemas"][name]
    if "properties" not in shape:
        return
    assert shape.get("description"), name
    assert shape.get("examples"), name
    for example in shape["examples"]:
        schema(name).validate(example)


def test_rule_schema_has_one_option_for_each_head_and_one_for_all_aggregates() -> None:
    rule = DOCUMENT["components"]["schemas"]["Rule"]
    aggregate = DOCUMENT["components"]["schemas"]["AggregateRule"]
    aggregate_heads = set(HEADS) & set(aggregate["properties"])
    assert len(aggregate_heads) == 8
    assert len(rule["oneOf"]) == len(HEADS) - len(aggregate_heads) + 1


@pytest.mark.parametrize("model", RULES, ids=lambda model: model.head)
def test_rule_schema_accepts_the_examples_of_every_head(model: Any) -> None:
    for example in RULE_LANGUAGE["$defs"][model.__name__]["examples"]:
        schema("Rule").validate(example)


@pytest.mark.parametrize(
    "rule",
    [
        {"of": "A", "gt": 1},
        {"sum": "p", "gt": 1},
        {"sum": "p", "avg": "p", "of": "A", "gt": 1},
        {"sum": "p", "of": "A", "at_least": 1},
        {"trait": "p", "gt": {"sum": "p", "of": "A", "gte": 1}},
    ],
    ids=str,
)
def test_aggregate_schema_requires_exactly_one_head(rule: Any) -> None:
    assert not schema("Rule").is_valid(rule)


@pytest.mark.parametrize("name", sorted(DOCUMENT["components"]["schemas"]))
def test_schema_name_differs_from_its_properties(name: str) -> None:
    """Code of openapi-python-client assigns ``did = Did(did=did)``, so a class and its field need different names."""
    snake_case = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    assert snake_case not in DOCUMENT["components"]["schemas"][name].get("properties", {})


def test_schemas_and_parameters_offer_no_default_or_null_that_misleads_generators() -> None:
    for name, shape in DOCUMENT["components"]["schemas"].items():
        for field, content in shape.get("properties", {}).items():
            assert "default" not in content, (name, field)
    for path, _, operation in OPERATIONS:
        for parameter in operation.get("parameters", []):
            assert "null" not in json.dumps(parameter["schema"]), (path, parameter["name"])


def test_problems_are_shared_responses() -> None:
    for name, response in DOCUMENT["components"]["responses"].items():
        assert list(response["content"]) == ["application/problem+json"], name
    texts = {response["description"] for response in DOCUMENT["components"]["responses"].values()}
    for path, method, operation in OPERATIONS:
        for status, response in operation["responses"].items():
            if list(response.get("content", ())) == ["application/problem+json"]:
                assert response["description"] not in texts, (path, method, status)


def test_responses_have_only_their_own_content_types() -> None:
    content = {
        operation["operationId"]: set(operation["responses"]["200"].get("content", ()))
        for _, _, operation in OPERATIONS
        if "200" in operation["responses"]
    }
    assert content["get_browser_library"] == {"text/javascript"}
    assert content["stream_me"] == {"text/event-stream"}
    assert content["segment_pixel"] == {"image/gif"}
    assert content["get_metrics"] == {"text/plain"}
    assert content["mixpanel_track"] == {"application/json", "text/plain", "image/gif"}
    assert content["get_customer"] == {"application/json"}


def test_operations_document_failures_that_follow_from_their_declaration() -> None:
    for path, method, operation in OPERATIONS:
        statuses = set(operation["responses"])
        if operation.get("security") == [{"secretKey": []}]:
            assert statuses >= {"401", "403", "503"}, (path, method)
            assert "requestBody" not in operation or statuses >= {"400", "408"}, (path, method)
        if any("maximum" in parameter["schema"] for parameter in operation.get("parameters", [])):
            assert "422" in statuses, (path, method)


def test_page_document_is_openapi_3_0_with_shallow_rules() -> None:
    page_document = json.loads(RENDERED[PAGE_FILE])
    validate(page_document)
    schemas = page_document["components"]["schemas"]
    assert "oneOf" not in schemas["Rule"]
    for name in ("Rule", "Value"):
        schema(name).validate(schemas[name]["example"])
    assert "AggregateRule" not in schemas
    for path, method, operation in OPERATIONS:
        assert page_document["paths"][path][method]["operationId"] == operation["operationId"]


def test_vendor_operations_come_last() -> None:
    assert [tag["name"] for tag in DOCUMENT["tags"]][-len(VENDOR_TAGS) :] == list(VENDOR_TAGS)
    tags = {tag for _, _, operation in OPERATIONS for tag in operation["tags"]}
    assert tags == {tag["name"] for tag in DOCUMENT["tags"]}


async def test_responses_match_their_schemas(service: RunningApp) -> None:
    await service.send(track("Order Completed", anonymousId="anon-1"), {"type": "track", "userId": "u"}, expected=1)
    await service.tell("POST", "/v1/segments", {"key": "x", "rule": {"not": {"did": "e", "within": "1d"}}}, 201)
    value = {"avg": "total", "of": "Order Completed"}
    await service.tell("POST", "/v1/traits", {"key": "average", "value": value}, 201)
    for path, name in (
        ("customers/user-1", "CustomerOut"),
        ("customers/user-1/journey", "HistoryOut"),
        ("customers/user-1/segments", "SegmentsOfCustomerOut"),
        ("customers/user-1/segments?history=true", "SegmentsOfCustomerOut"),
        ("customers/user-1/segments/x/explain", "SegmentExplanationOut"),
        ("customers/user-1/journeys/six-stage/explain", "JourneyExplanationOut"),
        ("customers/user-1/touchpoints", "TimelineOut"),
        ("customers/user-1/links", "LinksOut"),
        ("segments", "SegmentsOut"),
        ("segments/x", "SegmentOut"),
        ("segments/x/members", "MembersOut"),
        ("segments/x/count", "CountOut"),
        ("segments/x/versions", "VersionsOut"),
        ("segment-health", "SegmentHealthReportOut"),
        ("traits", "TraitsOut"),
        ("traits/average", "TraitOut"),
        ("traits/average/versions", "VersionsOut"),
        ("journeys/six-stage/versions", "VersionsOut"),
        ("customers/user-1/traits/average/explain", "TraitExplanationOut"),
        ("journeys", "JourneysOut"),
        ("journeys/six-stage", "JourneyOut"),
        ("sources", "SourcesOut"),
        ("keys", "KeysOut"),
        ("quarantine", "QuarantineOut"),
    ):
        schema(name).validate(await service.ask(f"/v1/{path}"))
    rule = {"rule": {"did": "Order Completed"}}
    for path, body, name in (
        ("preview", rule, "PreviewOut"),
        ("preview", {**rule, "within_ms": 1}, "PreviewOut"),
        ("x/dry-run", rule, "DryRunOut"),
        ("x/verify", None, "VerifiedOut"),
    ):
        schema(name).validate(await service.tell("POST", f"/v1/segments/{path}", body))
    schema("Problem").validate(await service.ask("/v1/customers/nobody", 404))
    schema("LookupOut").validate(await service.tell("POST", "/v1/customers/lookup", {"customers": ["user-1", "x"]}))
