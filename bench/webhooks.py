"""(t) Webhooks of five tools, each alone and all at once, beside batches of 100 native messages; signed as tools sign.

Making and signing the deliveries is the load generator's part and done before the clock starts; verifying them is ours.
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
from bench.load_generator import Kind, Load, Request
from bench.result import Figure, Say
from bench.testbed import Stage

IN_FLIGHT: Final = 16
NATIVE_MESSAGES: Final = 100
SENDGRID_EVENTS: Final = 20
"""SendGrid sends what it has gathered in an array."""

_SECRET: Final = "a secret of the bench"
_KEY: Final = ec.generate_private_key(ec.SECP256R1())

Body = Callable[[int], Any]


@dataclass(frozen=True)
class Sizes:
    messages: int
    """Of each kind, in each repetition."""
    repetitions: int


FULL = Sizes(2_000, 3)
QUICK = Sizes(100, 1)


def _who(number: int) -> str:
    return f"customer-{number * 7919 % 20_000}@example.com"


def _sendgrid(number: int) -> Any:
    return [
        {
            "email": _who(number + place),
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
            "recipient": _who(number),
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
        "email": _who(number),
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
            "hidden": {"email": _who(number)},
            "definition": {
                "title": "Feedback",
                "fields": [{**field, "properties": {"start_at_one": False, "steps": 11}}],
            },
            "answers": [{"type": "number", "number": number % 11, "field": field}],
        },
    }


def _shopify(number: int) -> Any:
    order = json.loads(CONNECTORS["shopify"].sample)
    who, customer = _who(number), {"id": 20_000_000 + number * 7919 % 20_000, "email": _who(number)}
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    order = {name: value for name, value in order.items() if "phone" not in name and "address" not in name}
    return order | {
        "note_attributes": [],
        **dict.fromkeys(("created_at", "processed_at", "updated_at"), now),
        "id": 10_000_000 + number,
        "email": who,
        "contact_email": who,
        "customer": customer,
    }


KINDS: Final[dict[str, tuple[Body, int]]] = {
    "sendgrid": (_sendgrid, SENDGRID_EVENTS),
    "mailgun": (_mailgun, 1),
    "zendesk": (_zendesk, 1),
    "typeform": (_typeform, 1),
    "shopify": (_shopify, 1),
}
"""How a body is made, and how many messages it holds."""


def measure(stage: Stage, sizes: Sizes, say: Say) -> list[Figure]:
    _add_sources(stage)
    numbers = iter(range(1, 1 << 40))
    native: list[float] = []
    alone: dict[str, list[Load]] = {kind: [] for kind in KINDS}
    mixed: list[Load] = []
    for repetition in range(sizes.repetitions + 1):  # the first one warms up
        say(f"webhooks, {repetition} of {sizes.repetitions}")
        plan = stage.plan(Kind.BATCH, max(sizes.messages // NATIVE_MESSAGES, 1), IN_FLIGHT, NATIVE_MESSAGES)
        batches = stage.generator.run(plan)
        loads = {kind: _send(stage, _requests(stage, kind, sizes.messages, numbers)) for kind in KINDS}
        share = sizes.messages // len(KINDS)
        each = [_requests(stage, kind, share, numbers) for kind in KINDS]
        together = _send(stage, _interleaved(each))
        if repetition:
            native.append(batches.rate)
            mixed.append(together)
            for kind, load in loads.items():
                alone[kind].append(load)
    return [
        Figure(
            "t",
            "webhooks of five kinds at once, messages/s over native batches of 100",
            median(load.rate / rate for load, rate in zip(mixed, native, strict=True)),
            "at least",
            None,
            f"{_told(mixed)} over {median(native):,.0f}/s; {IN_FLIGHT} in flight",
        ),
        *(
            Figure(
                "t",
                f"{CONNECTORS[kind].name} alone, {KINDS[kind][1]} messages a request",
                median(load.rate / rate for load, rate in zip(loads, native, strict=True)),
                "at least",
                None,
                _told(loads),
            )
            for kind, loads in alone.items()
        ),
    ]


def _told(loads: list[Load]) -> str:
    rates = sorted(load.rate for load in loads)
    p50, p99 = (median(getattr(load, name) for load in loads) for name in ("p50_ms", "p99_ms"))
    return f"{median(rates):,.0f}/s ({rates[0]:,.0f} to {rates[-1]:,.0f}); p50 {p50:.1f} ms, p99 {p99:.1f} ms"


def _add_sources(stage: Stage) -> None:
    headers = {"Authorization": f"Bearer {stage.segue.printed_key('secret')}"}
    shown = b64encode(_KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()
    with httpx.Client(base_url=stage.segue.url, headers=headers) as client:
        for kind in KINDS:
            client.post("/v1/sources", json={"key": kind, "kind": kind}).raise_for_status()
            secret = shown if kind == "sendgrid" else _SECRET
            client.post(f"/v1/sources/{kind}/secrets", json={"secret": secret}).raise_for_status()


def _requests(stage: Stage, kind: str, messages: int, numbers: Iterator[int]) -> list[Request]:
    body, size = KINDS[kind]
    return [_request(stage, kind, body(next(numbers)), size) for _ in range(max(messages // size, 1))]


def _request(stage: Stage, kind: str, body: Any, messages: int) -> Request:
    tool = CONNECTORS[kind]
    delivery = _signed(
        kind,
        WebhookRequest(
            body=json.dumps(body, separators=(",", ":")).encode(),
            headers=dict(tool.sample_headers),
            received_at=int(time.time() * SECOND),
        ),
    )
    head = {"Host": f"127.0.0.1:{stage.segue.port}", **delivery.headers, "Content-Length": str(len(delivery.body))}
    lines = [f"POST /v1/sources/{kind}/webhook HTTP/1.1", *(f"{name}: {value}" for name, value in head.items())]
    return Request(("\r\n".join(lines) + "\r\n\r\n").encode() + delivery.body, messages)


def _signed(kind: str, delivery: WebhookRequest) -> WebhookRequest:
    scheme = CONNECTORS[kind].scheme
    if scheme.sign is not None:
        return scheme.sign(delivery, _SECRET)
    moment = str(delivery.received_at // SECOND)
    proof = {
        "x-twilio-email-event-webhook-timestamp": moment,
        "x-twilio-email-event-webhook-signature": b64encode(
            _KEY.sign(moment.encode() + delivery.body, ec.ECDSA(SHA256()))
        ).decode(),
    }
    return msgspec.structs.replace(delivery, headers={**delivery.headers, **proof})


def _interleaved(each: list[list[Request]]) -> list[Request]:
    """Evenly over the whole time, whatever their numbers."""
    placed = [((index + 0.5) / len(kind), request) for kind in each for index, request in enumerate(kind)]
    return [request for _, request in sorted(placed, key=lambda pair: pair[0])]


def _send(stage: Stage, requests: list[Request]) -> Load:
    return stage.generator.send(stage.segue.port, requests, IN_FLIGHT, b'"duplicate":0,"rejected":0,"ignored":0')
