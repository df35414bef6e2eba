"""Webhook benchmark: signed deliveries of five tools, separately and mixed, against native batches of 100.

The deliveries are built and signed before the clock starts. The server verifies the signatures.
"""

from __future__ import annotations

import json
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

import httpx
import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from app.connectors.tools import CONNECTORS
from app.connectors.webhook_request import WebhookRequest
from app.touchpoint import SECOND
from bench.load_generator import Load, Request, RequestKind
from bench.result import Benchmark, Progress, Result
from bench.testbed import Testbed

IN_FLIGHT: Final = 16
NATIVE_MESSAGES: Final = 100
SENDGRID_EVENTS: Final = 20
"""Number of events in one request, because SendGrid sends several events in one array."""

_SECRET: Final = "benchmark secret"
_KEY: Final = ec.generate_private_key(ec.SECP256R1())

Body = Callable[[int], Any]


@dataclass(frozen=True)
class Sizes:
    messages: int
    """Number of messages of each kind of tool in each repetition."""
    repetitions: int


FULL = Sizes(2_000, 3)
QUICK = Sizes(100, 1)


def _email(number: int) -> str:
    return f"customer-{number * 7919 % 20_000}@example.com"


def _sendgrid(number: int) -> Any:
    return [
        {
            "email": _email(number + place),
            "timestamp": int(time.time()) - place,
            "event": ("delivered", "open", "click")[place % 3],
            "sg_event_id": f"sg-{number}-{place}",
            "sg_message_id": f"m-{number}.filter.1",
            "url": "https://shop.example.com/offer",
            "useragent": "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0",
            "category": ["news"],
        }
        for place in range(SENDGRID_EVENTS)
    ]


def _mailgun(number: int) -> Any:
    return {
        "event-data": {
            "event": "clicked",
            "id": f"mg-{number}",
            "timestamp": time.time(),
            "recipient": _email(number),
            "url": "https://shop.example.com/offer",
            "tags": ["news"],
            "message": {"headers": {"message-id": f"m-{number}@example.org"}},
            "client-info": {"user-agent": "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0"},
        }
    }


def _zendesk(number: int) -> Any:
    return {
        "ticket_id": str(number % 3_000),
        "event": "ticket.updated",
        "status": ("new", "open", "pending", "solved")[number % 4],
        "email": _email(number),
        "requester_id": str(number * 7919 % 20_000),
        "updated_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "title": f"Question number {number}",
    }


def _typeform(number: int) -> Any:
    field = {"id": "nps", "ref": "nps", "type": "opinion_scale"}
    return {
        "event_id": f"tf-{number}",
        "event_type": "form_response",
        "form_response": {
            "form_id": "feedback",
            "token": f"tf-{number}",
            "submitted_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "hidden": {"email": _email(number)},
            "definition": {
                "title": "Feedback",
                "fields": [{**field, "properties": {"start_at_one": False, "steps": 11}}],
            },
            "answers": [{"type": "number", "number": number % 11, "field": field}],
        },
    }


def _shopify(number: int) -> Any:
    order = json.loads(CONNECTORS["shopify"].sample)
    email, customer = _email(number), {"id": 20_000_000 + number * 7919 % 20_000, "email": _email(number)}
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    order = {name: value for name, value in order.items() if "phone" not in name and "address" not in name}
    return order | {
        "note_attributes": [],
        **dict.fromkeys(("created_at", "processed_at", "updated_at"), now),
        "id": 10_000_000 + number,
        "email": email,
        "contact_email": email,
        "customer": customer,
    }


KINDS: Final[dict[str, tuple[Body, int]]] = {
    "sendgrid": (_sendgrid, SENDGRID_EVENTS),
    "mailgun": (_mailgun, 1),
    "zendesk": (_zendesk, 1),
    "typeform": (_typeform, 1),
    "shopify": (_shopify, 1),
}
"""(factory of bodies, number of messages in one body) by kind of tool."""


def measure(testbed: Testbed, sizes: Sizes, progress: Progress) -> list[Result]:
    _add_sources(testbed)
    numbers = iter(range(1, 1 << 40))
    native: list[float] = []
    alone: dict[str, list[Load]] = {kind: [] for kind in KINDS}
    mixed: list[Load] = []
    for repetition in range(sizes.repetitions + 1):  # The first repetition is the warm-up.
        progress(f"webhooks, {repetition} of {sizes.repetitions}")
        plan = testbed.plan(RequestKind.BATCH, max(sizes.messages // NATIVE_MESSAGES, 1), IN_FLIGHT, NATIVE_MESSAGES)
        batches = testbed.generator.run(plan)
        loads = {kind: _send(testbed, _requests(testbed, kind, sizes.messages, numbers)) for kind in KINDS}
        share = sizes.messages // len(KINDS)
        requests = [_requests(testbed, kind, share, numbers) for kind in KINDS]
        together = _send(testbed, _interleave(requests))
        if repetition:
            native.append(batches.rate)
            mixed.append(together)
            for kind, load in loads.items():
                alone[kind].append(load)
    return [
        Result(
            Benchmark.WEBHOOKS,
            "webhooks of five kinds mixed: messages/s over native batches of 100",
            median(load.rate / rate for load, rate in zip(mixed, native, strict=True)),
            "at least",
            None,
            f"{_summary(mixed)} over {median(native):,.0f}/s; {IN_FLIGHT} in flight",
        ),
        *(
            Result(
                Benchmark.WEBHOOKS,
                f"{CONNECTORS[kind].name} only, {KINDS[kind][1]} per request",
                median(load.rate / rate for load, rate in zip(loads, native, strict=True)),
                "at least",
                None,
                _summary(loads),
            )
            for kind, loads in alone.items()
        ),
    ]


def _summary(loads: list[Load]) -> str:
    rates = sorted(load.rate for load in loads)
    p50, p99 = (median(getattr(load, name) for load in loads) for name in ("p50_ms", "p99_ms"))
    return f"{median(rates):,.0f}/s ({rates[0]:,.0f} to {rates[-1]:,.0f}); p50 {p50:.1f} ms, p99 {p99:.1f} ms"


def _add_sources(testbed: Testbed) -> None:
    headers = {"Authorization": f"Bearer {testbed.segue.printed_key('secret')}"}
    public_key = b64encode(_KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()
    with httpx.Client(base_url=testbed.segue.url, headers=headers) as client:
        for kind in KINDS:
            client.post("/v1/sources", json={"key": kind, "kind": kind}).raise_for_status()
            secret = public_key if kind == "sendgrid" else _SECRET
            client.post(f"/v1/sources/{kind}/secrets", json={"secret": secret}).raise_for_status()


def _requests(testbed: Testbed, kind: str, messages: int, numbers: Iterator[int]) -> list[Request]:
    body, size = KINDS[kind]
    return [_request(testbed, kind, body(next(numbers)), size) for _ in range(max(messages // size, 1))]


def _request(testbed: Testbed, kind: str, body: Any, messages: int) -> Request:
    tool = CONNECTORS[kind]
    delivery = _sign(
        kind,
        WebhookRequest(
            body=json.dumps(body, separators=(",", ":")).encode(),
            headers=dict(tool.sample_headers),
            received_at=int(time.time() * SECOND),
        ),
    )
    head = {"Host": f"127.0.0.1:{testbed.segue.port}", **delivery.headers, "Content-Length": str(len(delivery.body))}
    lines = [f"POST /v1/sources/{kind}/webhook HTTP/1.1", *(f"{name}: {value}" for name, value in head.items())]
    return Request(("\r\n".join(lines) + "\r\n\r\n").encode() + delivery.body, messages)


def _sign(kind: str, delivery: WebhookRequest) -> WebhookRequest:
    scheme = CONNECTORS[kind].scheme
    if scheme.sign is not None:
        return scheme.sign(delivery, _SECRET)
    timestamp = str(delivery.received_at // SECOND)
    signature_headers = {
        "x-twilio-email-event-webhook-timestamp": timestamp,
        "x-twilio-email-event-webhook-signature": b64encode(
            _KEY.sign(timestamp.encode() + delivery.body, ec.ECDSA(SHA256()))
        ).decode(),
    }
    return msgspec.structs.replace(delivery, headers={**delivery.headers, **signature_headers})


def _interleave(groups: list[list[Request]]) -> list[Request]:
    """Merge the lists so that the requests of each group are spread evenly over the whole list."""
    placed = [((index + 0.5) / len(group), request) for group in groups for index, request in enumerate(group)]
    return [request for _, request in sorted(placed, key=lambda pair: pair[0])]


def _send(testbed: Testbed, requests: list[Request]) -> Load:
    return testbed.generator.send(testbed.segue.port, requests, IN_FLIGHT, b'"duplicate":0,"rejected":0,"ignored":0')
