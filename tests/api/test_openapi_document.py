"""The published document: committed, valid, with an example everywhere, and good enough to make a client from."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from referencing import Registry, Resource

from app.openapi import OPENAPI_FILE, render_document
from app.rules.language.validation import HEADS
from tests.support.running_app import RunningApp, track

DOCUMENT: dict[str, Any] = json.loads(render_document())
OPERATIONS = [
    (path, method, operation) for path, methods in DOCUMENT["paths"].items() for method, operation in methods.items()
]


def test_the_committed_document_is_up_to_date() -> None:
    assert OPENAPI_FILE.read_text(encoding="utf-8") == render_document(), "run `make openapi`"


def test_it_is_valid() -> None:
    assert DOCUMENT["openapi"].startswith("3.1")
    validate(DOCUMENT)


def test_every_operation_reads_well() -> None:
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
def test_every_shape_has_examples_that_fit(name: str) -> None:
    shape = DOCUMENT["components"]["schemas"][name]
    if "properties" not in shape:
        return
    assert shape.get("description"), name
    assert shape.get("examples"), name
    for example in shape["examples"]:
        schema(name).validate(example)


def test_rules_are_a_union_of_their_heads() -> None:
    rule = DOCUMENT["components"]["schemas"]["Rule"]
    assert len(rule["oneOf"]) == len(HEADS)


async def test_answers_fit_their_shapes(service: RunningApp) -> None:
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


async def test_a_generated_client_reads_a_customer(
    service: RunningApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.yml").write_text("post_hooks: []\n")
    (tmp_path / "openapi.json").write_text(json.dumps(DOCUMENT))
    done = subprocess.run(
        [Path(sysconfig.get_path("scripts")) / "openapi-python-client", "generate", "--path", "openapi.json",
         "--config", "config.yml", "--meta", "none", "--output-path", "segue_client", "--fail-on-warning"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    monkeypatch.syspath_prepend(tmp_path)
    generated = importlib.import_module("segue_client")
    operation = importlib.import_module("segue_client.api.customers.get_customer")
    await service.send(track("Order Completed"))
    client = generated.AuthenticatedClient(base_url="http://segue.example.com", token=service.keys.secret_key)
    client.set_async_httpx_client(
        httpx.AsyncClient(transport=service.transport, base_url="http://segue.example.com", headers=service.secret)
    )
    customer = await operation.asyncio("user_id:user-1", client=client)
    assert customer.stages["six-stage"].stage == "purchase"
    assert customer.identities[0].value == "user-1"
    for name in [name for name in sys.modules if name.startswith("segue_client")]:
        del sys.modules[name]
