"""Computing time of the longest step of parsing, for bodies that are as expensive as the limits allow.

A step cannot be interrupted, so the event loop is held for at least this time.
"""

from __future__ import annotations

import gzip
import json
import random
import time
from typing import Any, Final

import pytest

from app.config import Limits, Settings
from app.errors import SegueError
from app.formats import ga4, mixpanel, posthog
from app.formats.decompression import inflate_in_steps
from app.formats.email_phone import parse_email
from app.formats.segment import Envelope, normalise_in_steps, read_in_steps, read_write_key_in_steps
from app.formats.steps import Steps
from app.touchpoint import SourceView
from tests.hostile.attacks import build_long_addresses
from tests.hostile.support import figures

pytestmark = pytest.mark.hostile

STEP_SECONDS_MAX: Final = 0.05
LIMITS: Final = Limits()
parse_email("user@bücher.example.com")  # The first one loads tables, once in each process: 30 ms.
SETTINGS: Final = Settings(database_url="postgresql://localhost/segue")
PROPERTIES: Final = {f"key{number}": number for number in range(30)}


def batch(*items: bytes) -> bytes:
    return b'{"batch":[' + b",".join(items) + b"]}"


def track(properties: bytes) -> bytes:
    return b'{"type":"track","userId":"u","event":"e","properties":' + properties + b"}"


def text(content: bytes) -> bytes:
    return track(b'{"a":"' + content + b'"}')


def phones(number: int) -> bytes:
    rng = random.Random(number)
    ids = [{"type": "phone", "id": f"+4930{rng.randrange(10**7)}"} for _ in range(700)]
    return json.dumps({"type": "track", "userId": "u", "event": "e", "context": {"externalIds": ids}}).encode()


BODIES: Final = {
    "1,330,000 empty messages": batch(*[b"{}"] * 1_330_000),
    "5,000 empty messages": batch(*[b"{}"] * 5_000),
    "2,500 messages with 70 properties": batch(*[track(json.dumps(dict.fromkeys(range(70))).encode())] * 2_500),
    "4 MB of text": batch(*[text(b"x" * 1_500)] * 2_500),
    "4 MB of umlauts": batch(*[text("ü".encode() * 15_000)] * 120),
    "10,000 bytes that are not UTF-8": batch(*[text(b"\xff" * 4)] * 2_500),
    "lone surrogates": batch(*[text(b"\\ud800" * 5_000)] * 120),
    "pairs of surrogates": batch(*[text(b"\\ud83d\\ude00" * 2_500)] * 120),
    "backslashes": batch(*[text(b"\\\\" * 15_000 + b"\\ud800")] * 130),
    "NUL": batch(*[text(b"\\u0000" * 5_000)] * 120),
    "deep arrays": batch(*[track(b'{"a":' + b"[" * 3_000 + b"]" * 3_000 + b"}")] * 33),
    "one deep array": batch(b"[" * 90_000 + b"]" * 90_000),
    "numbers with exponents": batch(*[track(b'{"a":[' + b",".join([b"1e309"] * 1_500) + b"]}")] * 120),
    "phone numbers": batch(*map(phones, range(100))),
    "long internationalised addresses": gzip.decompress(build_long_addresses()),
    "context with numbers": b'{"context":{"a":[' + b"1e100," * 5_000 + b"0]}," + batch(*[text(b"")] * 100)[1:],
}  # fmt: skip


def measure_longest_step(steps: Steps[Any]) -> tuple[float, Any]:
    """Run a computation. Return the computing time of its longest step, and its result; None if it is refused."""
    longest = 0.0
    while True:
        started_at = time.process_time()
        try:
            next(steps)
        except StopIteration as end:
            return max(longest, time.process_time() - started_at), end.value
        except SegueError:
            return max(longest, time.process_time() - started_at), None
        longest = max(longest, time.process_time() - started_at)


def check(name: str, *computations: Any) -> None:
    """Run computations, each on the result of the one before, and check the longest step of all."""
    longest, result = 0.0, None
    for compute in computations:
        seconds, result = measure_longest_step(compute(result))
        longest = max(longest, seconds)
        if result is None:
            break
    figures.append((f"longest step: {name}", f"{longest * 1_000:.1f} ms"))
    assert longest < STEP_SECONDS_MAX


def normalise(envelope: Envelope) -> Steps[Any]:
    return normalise_in_steps(envelope, SourceView(key="site"), 1, SETTINGS)


@pytest.mark.parametrize("name", BODIES)
def test_bodies_of_segment(name: str) -> None:
    body = gzip.compress(BODIES[name])
    check(
        name,
        lambda _: inflate_in_steps(body, None, LIMITS),
        lambda content: read_in_steps(content, "batch", LIMITS),
        normalise,
    )
    check(f"{name}, key", lambda _: read_write_key_in_steps(BODIES[name], LIMITS))


@pytest.mark.parametrize("vendor", ["posthog", "mixpanel", "ga4"])
def test_bodies_of_other_vendors(vendor: str) -> None:
    events = [{"event": "e", "distinct_id": f"u{number}", "properties": PROPERTIES} for number in range(4_990)]
    if vendor == "posthog":
        body = json.dumps({"api_key": "k", "batch": events}).encode()
        check(vendor, lambda _: posthog.read_in_steps(body, 1, LIMITS), normalise)
    elif vendor == "mixpanel":
        items = [{"event": "e", "properties": {"token": "k", "distinct_id": "u", **PROPERTIES}} for _ in range(4_990)]
        body = json.dumps(items).encode()
        check(vendor, lambda _: mixpanel.read_in_steps(body, "track", 1, LIMITS), normalise)
    else:
        body = json.dumps({"client_id": "u", "events": [{"name": "e", "params": PROPERTIES}] * 4_990}).encode()
        check(vendor, lambda _: ga4.read_in_steps(body, "k", 1, LIMITS), normalise)
