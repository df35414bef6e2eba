"""Requests and their expected effects on the response, the source's health, the metrics and the erasure requests."""

from __future__ import annotations

import json
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.support.tool_fixture import Fixture

KEY: Final = "WRITE-KEY"
"""Placeholder for the write key of the source in bodies, headers and URLs."""

_NOT_OUTCOMES: Final = {"segue_requests_total", "segue_fill_customers_total", "segue_fill_touchpoints_total"}
"""Metrics that count HTTP requests or work of the background worker instead of outcomes."""
_SIGNATURE_REASONS: Final = ("missing", "wrong", "stale", "replayed")


@dataclass(frozen=True)
class Target:
    """Source on a running server, to which an entrance sends its requests."""

    http: httpx.Client
    secret_key: str
    key: str
    write_key: str

    @property
    def secret(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.secret_key}"}

    def ask(self, path: str, **params: Any) -> Any:
        response = self.http.get(path, headers=self.secret, params=params or None)
        assert response.status_code == 200, response.text
        return response.json()


class Sends(Protocol):
    def send(self, target: Target) -> httpx.Response: ...


@dataclass(frozen=True)
class Request:
    """HTTP request that contains the write key, or the secret key if ``is_secret``."""

    method: str
    path: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    basic: bool = False
    is_secret: bool = False

    def send(self, target: Target) -> httpx.Response:
        def with_key(text: str) -> str:
            return text.replace(KEY, target.write_key).replace("SOURCE", target.key)

        headers = {name: with_key(value) for name, value in self.headers.items()}
        if self.basic:
            headers["Authorization"] = f"Basic {b64encode(f'site-1:{target.write_key}'.encode()).decode()}"
        if self.is_secret:
            headers |= target.secret
        body = self.body.replace(KEY.encode(), target.write_key.encode())
        return target.http.request(self.method, with_key(self.path), content=body, headers=headers)


def post(path: str, body: Any = None, method: str = "POST", **options: Any) -> Request:
    content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    return Request(method, path, content, **options)


def get(path: str, **options: Any) -> Request:
    return Request("GET", path, **options)


@dataclass(frozen=True)
class Delivery:
    """Webhook, signed with ``secret`` as the tool does. It is unsigned if ``secret`` is None."""

    fixture: Fixture
    body: bytes
    secret: str | None
    headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": "application/json"})
    age_seconds: int = 0

    def send(self, target: Target) -> httpx.Response:
        url = f"{target.http.base_url}/v1/sources/{target.key}/webhook"
        proof: Mapping[str, str] = {}
        query: Mapping[str, str] = {}
        if self.secret is not None:
            signed_at = time.time_ns() // 1_000 - self.age_seconds * 1_000_000
            proof, query = self.fixture.sign(self.body, self.secret, signed_at, url)
        return target.http.post(url, content=self.body, headers={**self.headers, **proof}, params=query or None)


@dataclass(frozen=True)
class Replay:
    """Replay of the newest quarantined message that matches the filter ``of``, unchanged or as ``corrected``."""

    of: Mapping[str, str]
    corrected: Any = None

    def send(self, target: Target) -> httpx.Response:
        newest = target.ask("/v1/quarantine", source=target.key, **self.of)["items"][0]
        content = b"" if self.corrected is None else json.dumps(self.corrected).encode()
        return target.http.post(f"/v1/quarantine/{newest['id']}/replay", content=content, headers=target.secret)


@dataclass(frozen=True)
class BulkReplay:
    """Replay of all quarantined messages of the source that match the filter ``of``.

    With ``names_ids`` the filter lists ids, so it includes messages that were replayed before.
    """

    of: Mapping[str, Any]
    patch: Any = None
    dry_run: bool = False
    names_ids: bool = False

    def send(self, target: Target) -> httpx.Response:
        chosen = {"source": target.key, **self.of}
        if self.names_ids:
            chosen["ids"] = [row["id"] for row in target.ask("/v1/quarantine", **chosen)["items"]]
        body = {"filter": chosen, "dry_run": self.dry_run, **({"patch": self.patch} if self.patch else {})}
        return target.http.post("/v1/quarantine/replay", json=body, headers=target.secret)


class SegueReceipt:
    """Marker of an expected response: a receipt of Segue with the outcomes of the row."""


RECEIPT: Final = SegueReceipt()

GIF: Final = {"content-type": "image/gif"}
"""Marker of an expected response: the tracking pixel."""


@dataclass(frozen=True)
class Row:
    """One request and all its effects."""

    about: str
    request: Sends
    outcomes: Mapping[str, int] = field(default_factory=dict)
    """Number of messages (``refused``: deliveries) by outcome: ``accepted``, ``duplicate``, ``ignored``,
    ``rejected:CODE``, ``warned:CODE``, ``warned:CODE:REASON`` or ``refused:REASON``."""
    answer: Any = RECEIPT
    """Expected response: some fields of a JSON object, or the whole text."""
    status: int = 200
    violations: Mapping[str, int] = field(default_factory=dict)
    """Number of messages that violate the tracking plan, by mode of the plan."""
    erasures: tuple[str, ...] = ()
    """Identities whose erasure is requested, as ``kind:value``."""
    quarantined: int | None = None
    """Number of messages that the request adds to the quarantine. None means the number of rejected messages."""


@dataclass(frozen=True)
class Entrance:
    """Group of endpoints: a source and the requests that it receives, in order."""

    key: str
    rows: tuple[Row, ...]
    kind: str = "sdk"
    secret: str = ""
    bots: str = "quarantine"


def read_counters(target: Target) -> Counter[str]:
    """Return all outcome counters of the server by name and labels."""
    counters: Counter[str] = Counter()
    for family in text_string_to_metric_families(target.http.get("/metrics").text):
        for sample in family.samples:
            if family.type == "counter" and sample.name.endswith("_total") and sample.name not in _NOT_OUTCOMES:
                counters[metric(sample.name, **sample.labels)] = int(sample.value)
    return counters


def metric(name: str, **labels: str) -> str:
    return f"{name}{sorted(labels.items())}"


def read_health(target: Target) -> Counter[str]:
    """Return the counts in the source's health, including those by code and by reason."""
    health = target.ask(f"/v1/sources/{target.key}/health")
    counts = {f"counts.{outcome}": times for outcome, times in health["counts"].items()}
    for group in ("rejected", "refused", "warned"):
        counts |= {f"{group}:{detail}": times for detail, times in health[group].items()}
    return Counter(counts | {"quarantined": health["quarantined"]})


def read_erasures(target: Target) -> Counter[str]:
    requests = target.ask("/v1/erasure-requests", limit=1_000)["items"]
    return Counter(f"{request['kind']}:{request['value']}" for request in requests if request["source"] == target.key)


def read_all(target: Target) -> dict[str, Counter[str]]:
    return {"metrics": read_counters(target), "health": read_health(target), "erasures": read_erasures(target)}


def changes(before: Mapping[str, Counter[str]], after: Mapping[str, Counter[str]]) -> dict[str, dict[str, int]]:
    return {
        part: {
            name: after[part][name] - before[part][name]
            for name in after[part].keys() | before[part].keys()
            if after[part][name] != before[part][name]
        }
        for part in after
    }


def expected_changes(entrance: Entrance, row: Row) -> dict[str, dict[str, int]]:
    """Return the expected changes of metrics, health and erasure requests after the request of the row."""
    metrics: Counter[str] = Counter()
    health: Counter[str] = Counter()
    for name, times in row.outcomes.items():
        outcome, _, detail = name.partition(":")
        metrics[metric("segue_source_outcomes_total", source=entrance.key, outcome=outcome)] += times
        health[f"counts.{outcome}"] += times
        if detail:
            health[name] += times
        if outcome in ("accepted", "duplicate", "rejected"):
            metrics[metric("segue_messages_total", outcome=outcome)] += times
        if outcome == "rejected":
            metrics[metric("segue_rejections_total", code=detail)] += times
        if outcome == "refused" and detail in _SIGNATURE_REASONS:
            metrics[metric("segue_webhooks_refused_total", kind=entrance.kind, reason=detail)] += times
        code, _, reason = detail.partition(":")
        if outcome == "warned" and reason:
            kind = code.removesuffix("_unusable")
            metrics[metric("segue_contacts_unusable_total", kind=kind, reason=reason)] += times
    for mode, times in row.violations.items():
        metrics[metric("segue_plan_violations_total", mode=mode)] += times
    rejected = sum(times for name, times in row.outcomes.items() if name.startswith("rejected:"))
    quarantined = rejected if row.quarantined is None else row.quarantined
    if quarantined:
        health["quarantined"] = quarantined
    return {"metrics": dict(metrics), "health": dict(health), "erasures": dict.fromkeys(row.erasures, 1)}


def assert_answer(row: Row, response: httpx.Response) -> None:
    assert response.status_code == row.status, response.text
    if row.answer is RECEIPT:
        assert_receipt(row.outcomes, response.json())
    elif row.answer is GIF:
        assert response.headers["content-type"] == "image/gif"
    elif isinstance(row.answer, str):
        assert response.text == row.answer
    else:
        answer = response.json()
        assert is_part_of(row.answer, answer), answer


def is_part_of(expected: Any, actual: Any) -> bool:
    """Return True if the actual value contains the expected value.

    Objects may have more fields than expected. Lists must have the same length.
    """
    if isinstance(expected, dict):
        return isinstance(actual, dict) and all(
            name in actual and is_part_of(value, actual[name]) for name, value in expected.items()
        )
    if isinstance(expected, list):
        return len(expected) == len(actual) and all(map(is_part_of, expected, actual))
    return bool(expected == actual)


def assert_receipt(outcomes: Mapping[str, int], receipt: Mapping[str, Any]) -> None:
    """Compare a receipt. A receipt for SDKs lists rejections and warnings; one for webhooks counts ignored events."""
    by_outcome: Counter[str] = Counter()
    codes: dict[str, Counter[str]] = {"rejected": Counter(), "warned": Counter()}
    for name, times in outcomes.items():
        outcome, code, *_ = [*name.split(":"), ""]
        by_outcome[outcome] += times
        if outcome in codes:
            codes[outcome][code] += times
    for outcome in ("accepted", "duplicate", "rejected"):
        assert receipt[outcome] == by_outcome[outcome], receipt
    assert receipt["success"] is receipt["projected"] is True
    if "ignored" in receipt:
        assert receipt["ignored"] == by_outcome["ignored"], receipt
        return
    assert Counter(rejection["code"] for rejection in receipt["rejections"]) == codes["rejected"]
    assert Counter(warning["code"] for warning in receipt.get("warnings", [])) == codes["warned"]
