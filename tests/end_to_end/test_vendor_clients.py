"""Python clients of Mixpanel, Customer.io and PostHog against a running server behind a faulty proxy.

Mixpanel's client uses only TLS and Customer.io's retries only over TLS, so the proxy has a certificate of a test
authority.
"""

from __future__ import annotations

import ssl
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx
import pytest
import trustme
from customerio import CustomerIO, CustomerIOException  # type: ignore[import-untyped]  # it ships no types
from mixpanel import (  # type: ignore[import-untyped]  # nor does it
    BufferedConsumer,
    Mixpanel,
    MixpanelException,
    ServiceAccountCredentials,
)
from posthog import Posthog

from tests.end_to_end.test_segment_sdks import BAD_DAYS, COUNT
from tests.support.faulty_proxy import FaultyProxy, running_proxy
from tests.support.server_process import Server

IDS = ("a/b c", "100%", "a+b", "a%2Fb", "ünï/日本", "?x=1#y", 'it\'s "so"')


@pytest.fixture(scope="session")
def tls() -> Iterator[tuple[ssl.SSLContext, Path]]:
    """Return a TLS context with a certificate for 127.0.0.1, and the certificate file of its test authority."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with authority.cert_pem.tempfile() as file:
        yield context, Path(file)


@pytest.fixture
def trusted(tls: tuple[ssl.SSLContext, Path], monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """Make the HTTP library of the clients, requests, trust the test authority."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tls[1]))
    return tls[0]


def unique(*of: object) -> str:
    return sha256(repr(of).encode()).hexdigest()[:8]


def ask(server: Server, path: str) -> Any:
    answer = httpx.get(server.url + path, headers={"Authorization": f"Bearer {server.secret_key}"})
    assert answer.status_code == 200, answer.text
    return answer.json()


def customer(server: Server, reference: str) -> dict[str, Any]:
    received: dict[str, Any] = ask(server, f"/v1/customers/{quote(reference, safe='')}")
    return received


def identities(server: Server, reference: str) -> set[tuple[str, str]]:
    return {(entry["kind"], entry["value"]) for entry in customer(server, reference)["identities"]}


def touchpoints(server: Server, reference: str) -> list[dict[str, Any]]:
    """Return the customer's touchpoints, oldest first. Each message must be stored once."""
    page = ask(server, f"/v1/customers/{quote(reference, safe='')}/touchpoints?limit=1000")
    assert page["next_cursor"] is None
    assert max(Counter(entry["message_id"] for entry in page["items"]).values(), default=1) == 1
    return [entry for entry in page["items"][::-1] if entry["name"] is not None]


def assert_numbered(received: list[dict[str, Any]]) -> None:
    assert [entry["properties"]["number"] for entry in received] == list(range(COUNT))


# ------------------------------------------------------------------------------------------------------ Mixpanel


def mixpanel_by(server: Server, proxy: FaultyProxy, size: int = 10) -> tuple[Mixpanel, BufferedConsumer]:
    """Return a client. For imports it authenticates with a service account whose project is the write key."""
    host = proxy.url.removeprefix("https://")
    account = ServiceAccountCredentials("account", "secret", server.write_key)
    consumer = BufferedConsumer(max_size=size, api_host=host, retry_backoff_factor=0, credentials=account)
    return Mixpanel(server.write_key, consumer=consumer), consumer


@pytest.mark.parametrize("day", BAD_DAYS)
def test_mixpanel(server: Server, trusted: ssl.SSLContext, day: str) -> None:
    user = f"mixpanel-{unique(day)}"
    with running_proxy(server.port, *BAD_DAYS[day], tls=trusted) as proxy:
        sdk, consumer = mixpanel_by(server, proxy)
        for number in range(COUNT):
            sdk.track(user, "Product Viewed", {"number": number})
        consumer.flush()
        sdk.people_set(user, {"$email": f"{user}@example.com", "plan": "gold"})
        consumer.flush()
    assert [fault for fault in proxy.injected if fault != "pass"] == list(BAD_DAYS[day])
    assert sorted(entry["properties"]["number"] for entry in touchpoints(server, user)) == list(range(COUNT))
    assert customer(server, user)["traits"] == {"email": f"{user}@example.com", "plan": "gold"}


def test_mixpanel_import(server: Server, trusted: ssl.SSLContext) -> None:
    server.change_write_key(joins_users=True)
    user, other = f"import-{unique(1)}", f"import-{unique(2)}"
    with running_proxy(server.port, tls=trusted) as proxy:
        sdk, consumer = mixpanel_by(server, proxy)
        for number in range(COUNT):
            sdk.import_data(None, user, "Ordered", 853_000_000 + number, {"number": number})
        sdk.merge(None, user, other)
        sdk.group_set("company", "acme", {"size": 5})
        consumer.flush()
    received = touchpoints(server, other)
    assert_numbered(received)
    assert received[0]["occurred_at"] == "1997-01-11T16:26:40.000000Z"
    assert identities(server, user) == {("user_id", user), ("user_id", other)}


@pytest.mark.parametrize("id", IDS)
def test_mixpanel_ids(server: Server, trusted: ssl.SSLContext, id: str) -> None:
    with running_proxy(server.port, tls=trusted) as proxy:
        sdk, consumer = mixpanel_by(server, proxy)
        sdk.track(f"mixpanel {id}", 'Réad & "done"', {"text": id})
        consumer.flush()
    [received] = touchpoints(server, f"user_id:mixpanel {id}")
    assert (received["name"], received["properties"]["text"]) == ('Réad & "done"', id)


def test_mixpanel_client_reports_a_wrong_key(server: Server, trusted: ssl.SSLContext) -> None:
    with running_proxy(server.port, tls=trusted) as proxy:
        consumer = BufferedConsumer(api_host=proxy.url.removeprefix("https://"), retry_limit=0)
        Mixpanel("wk_unknown", consumer=consumer).track("u", "E")
        with pytest.raises(MixpanelException, match="write key is unknown"):
            consumer.flush()


# --------------------------------------------------------------------------------------------------- Customer.io


def customerio_by(server: Server, proxy: FaultyProxy) -> CustomerIO:
    return CustomerIO("site-1", server.write_key, host="127.0.0.1", port=proxy.port, backoff_factor=0.01)


@pytest.mark.parametrize("day", BAD_DAYS)
def test_customerio(server: Server, trusted: ssl.SSLContext, day: str) -> None:
    user = f"customerio-{unique(day)}"
    with running_proxy(server.port, *BAD_DAYS[day], tls=trusted) as proxy, customerio_by(server, proxy) as sdk:
        for number in range(COUNT):
            sdk.track(user, "purchased", {"number": number}, id=f"{user}-{number}", timestamp=1_700_000_000 + number)
        sdk.identify(user, email=f"{user}@example.com", plan="gold", created_at=datetime(2023, 11, 14, tzinfo=UTC))
    assert [fault for fault in proxy.injected if fault != "pass"] == list(BAD_DAYS[day])
    assert_numbered(touchpoints(server, user))
    assert customer(server, f"email:{user}@example.com")["traits"] == {
        "email": f"{user}@example.com",
        "plan": "gold",
        "created_at": 1_699_920_000,
    }


@pytest.mark.parametrize("id", IDS)
def test_customerio_ids(server: Server, trusted: ssl.SSLContext, id: str) -> None:
    user = f"customerio {id}"
    with running_proxy(server.port, tls=trusted) as proxy, customerio_by(server, proxy) as sdk:
        sdk.identify(user, plan="gold")
        sdk.track(user, "purchased", {"price": 19.99})
        sdk.pageview(user, "https://shop.example.com/p", referrer="https://shop.example.com/")
        sdk.backfill(user, "seen", datetime(2020, 1, 1, tzinfo=UTC), n=1)
        sdk.add_device(user, f"device {id}", "ios", last_used=1_700_000_000)
        sdk.delete_device(user, f"device {id}")
        sdk.suppress(user)
        sdk.unsuppress(user)
        sdk.delete(user)
    received = touchpoints(server, f"user_id:{user}")
    assert [entry["name"] for entry in received] == [
        "seen", "purchased", "page_viewed", "push.device_added", "push.device_removed",
    ]  # fmt: skip
    assert received[0]["occurred_at"] == "2020-01-01T00:00:00.000000Z"
    assert received[2]["properties"]["url"] == "https://shop.example.com/p"
    assert customer(server, f"user_id:{user}")["traits"] == {"plan": "gold", "suppressed": False}
    assert identities(server, f"user_id:{user}") == {("user_id", user), ("customerio_device", f"device {id}")}
    requests = ask(server, "/v1/erasure-requests?limit=1000")["items"]
    # Suppress and delete request one erasure.
    assert [entry["value"] for entry in requests if entry["value"] == user] == [user]


def test_customerio_identities(server: Server, trusted: ssl.SSLContext) -> None:
    mark = unique("otherwise")
    address = f"{mark}@example.com"
    with running_proxy(server.port, tls=trusted) as proxy, customerio_by(server, proxy) as sdk:
        sdk.track_anonymous(f"anonymous-{mark}", "seen")
        sdk.identify(address, anonymous_id=f"anonymous-{mark}", plan="gold")
        sdk.merge_customers("id", f"user-{mark}", "email", address)
        sdk.track(f"cio_{mark}", "by cio_id")
        sdk.merge_customers("cio_id", mark, "id", f"user-{mark}")
    assert identities(server, f"user-{mark}") == {
        ("user_id", f"user-{mark}"),
        ("email", address),
        ("anonymous_id", f"anonymous-{mark}"),
        ("customerio_customer", mark),
    }
    assert {entry["name"] for entry in touchpoints(server, f"user-{mark}")} == {"seen", "by cio_id"}


def test_customerio_batch(server: Server, trusted: ssl.SSLContext) -> None:
    user = f"batch-{unique('batch')}"
    person = {"type": "person", "identifiers": {"id": user}}
    with running_proxy(server.port, tls=trusted) as proxy, customerio_by(server, proxy) as sdk:
        bought = {**person, "action": "event", "name": "purchased"}
        good = [{**bought, "attributes": {"number": n}, "timestamp": 1_700_000_000 + n} for n in range(COUNT)]
        assert sdk.batch(good).status_code == 200
        answer = sdk.batch(
            [*good, {**person, "action": "event", "name": ""}, {**person, "action": "identify", "attributes": {"a": 1}}]
        )
        assert answer.status_code == 207
        [error] = answer.json()["errors"]
        assert (error["batch_index"], error["field"]) == (COUNT, "name")
    assert_numbered(touchpoints(server, user))
    assert customer(server, user)["traits"] == {"a": 1}


def test_customerio_client_reports_a_wrong_key(server: Server, trusted: ssl.SSLContext) -> None:
    with running_proxy(server.port, tls=trusted) as proxy:
        sdk = CustomerIO("site-1", "wk_unknown", host="127.0.0.1", port=proxy.port)
        with sdk, pytest.raises(CustomerIOException, match="write key is unknown"):
            sdk.delete("user-1")


def test_client_refuses_an_untrusted_certificate(server: Server, tls: tuple[ssl.SSLContext, Path]) -> None:
    """The other tests are only meaningful if the client verifies certificates."""
    with running_proxy(server.port, tls=tls[0]) as proxy:
        sdk = CustomerIO("site-1", server.write_key, host="127.0.0.1", port=proxy.port, retries=0)
        with sdk, pytest.raises(CustomerIOException, match="CERTIFICATE_VERIFY_FAILED"):
            sdk.track("user-1", "E")


# ------------------------------------------------------------------------------------------------------- PostHog


class Lost(list[Any]):
    """Collects the errors that the client passes to its error callback."""


def posthog_by(server: Server, proxy: FaultyProxy, lost: Lost, **options: Any) -> Posthog:
    return Posthog(
        server.write_key,
        host=proxy.url,
        flush_at=10,
        flush_interval=0.1,
        max_retries=5,
        on_error=lambda error, _: lost.append(error),
        **options,
    )


PROTOCOLS: dict[str, dict[str, Any]] = {
    "v0": {},
    "v0, gzip": {"gzip": True},
    "v1": {"capture_mode": "v1"},
    "v1, gzip": {"capture_mode": "v1", "capture_compression": "gzip"},
    "v1, deflate": {"capture_mode": "v1", "capture_compression": "deflate"},
}


@pytest.mark.parametrize(
    ("day", "protocol"),
    [(day, protocol) for day in BAD_DAYS for protocol in ("v0", "v1")]
    + [("response lost", protocol) for protocol in PROTOCOLS if "," in protocol],
)
def test_posthog(server: Server, day: str, protocol: str) -> None:
    user, lost = f"posthog-{unique(day, protocol)}", Lost()
    began = datetime.now(UTC)
    with running_proxy(server.port, *BAD_DAYS[day]) as proxy:
        sdk = posthog_by(server, proxy, lost, **PROTOCOLS[protocol])
        for number in range(COUNT):
            at = began - timedelta(seconds=COUNT - number)
            sdk.capture("Product Viewed", distinct_id=user, properties={"number": number}, timestamp=at)
        sdk.set(distinct_id=user, properties={"email": f"{user}@example.com", "plan": "gold"})
        sdk.shutdown()
    assert lost == []
    assert [fault for fault in proxy.injected if fault != "pass"] == list(BAD_DAYS[day])
    path = b"post /i/v1/analytics/events " if protocol.startswith("v1") else b"post /batch/ "
    assert {head.startswith(path) for head in proxy.heads} == {True}
    received = touchpoints(server, user)
    assert_numbered(received)
    assert {entry["context"]["library"]["name"] for entry in received} == {"posthog-python"}
    assert customer(server, f"email:{user}@example.com")["traits"] == {
        "email": f"{user}@example.com", "plan": "gold",
    }  # fmt: skip


@pytest.mark.parametrize("protocol", ["v0", "v1"])
def test_posthog_historical_events_aliases_and_groups(server: Server, protocol: str) -> None:
    server.change_write_key(joins_users=True)
    mark, lost = unique("past", protocol), Lost()
    with running_proxy(server.port) as proxy:
        sdk = posthog_by(server, proxy, lost, historical_migration=True, **PROTOCOLS[protocol])
        for number in range(COUNT):
            at = datetime(1997, 1, 1, 0, 0, number, tzinfo=UTC)
            sdk.capture("Ordered", distinct_id=f"old-{mark}", properties={"number": number}, timestamp=at)
        sdk.alias(f"old-{mark}", f"new-{mark}")
        sdk.group_identify("company", "acme", {"size": 5}, distinct_id=f"new-{mark}")
        sdk.shutdown()
    assert lost == []
    received = touchpoints(server, f"new-{mark}")
    assert_numbered(received)
    assert {entry["occurred_at"][:16] for entry in received} == {"1997-01-01T00:00"}
    assert identities(server, f"old-{mark}") >= {("user_id", f"old-{mark}"), ("user_id", f"new-{mark}")}


@pytest.mark.parametrize("protocol", ["v0", "v1"])
@pytest.mark.parametrize("id", IDS)
def test_posthog_ids(server: Server, id: str, protocol: str) -> None:
    user, lost = f"posthog {protocol} {id}", Lost()
    with running_proxy(server.port) as proxy:
        sdk = posthog_by(server, proxy, lost, **PROTOCOLS[protocol])
        sdk.capture("Réad & done", distinct_id=user, properties={"text": id})
        sdk.shutdown()
    assert lost == []
    [received] = touchpoints(server, f"user_id:{user}")
    assert (received["name"], received["properties"]["text"]) == ("Réad & done", id)


def test_posthog_client_reports_refused_events(server: Server) -> None:
    user, uuid = f"posthog-{unique('refused')}", str(uuid4())
    lost = Lost()
    with running_proxy(server.port) as proxy:
        sdk = posthog_by(server, proxy, lost, **PROTOCOLS["v1"])
        sdk.capture("x" * 300, distinct_id=user, uuid=uuid)
        sdk.capture("Seen", distinct_id=user)
        sdk.shutdown()
    [error] = lost
    assert [dropped for dropped, _ in error.drops] == [uuid]
    assert [entry["name"] for entry in touchpoints(server, user)] == ["Seen"]
