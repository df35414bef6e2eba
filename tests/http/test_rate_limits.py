"""Tests of the rate limits by key, address and visitor."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from app.config import Settings
from app.errors import RateLimited
from app.http.rate_limits import CounterStorage, RateLimits
from app.postgres.pool import FrozenClock
from app.touchpoint import SECOND
from tests.support.running_app import NOON, RunningApp, is_problem, running_app
from tests.support.web_page import ORIGIN, WebPage, did


@asynccontextmanager
async def limited(settings: Settings, clock: FrozenClock, **rates: str | None) -> AsyncIterator[RunningApp]:
    none = {f"{name}_rate": None for name in ("key", "server_key", "address", "server_address", "visitor")}
    async with running_app(settings.model_copy(update={**none, **rates}), clock) as service:
        yield service


def from_address(service: RunningApp, address: str) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=service.app, client=(address, 1234))
    return httpx.AsyncClient(transport=transport, base_url="http://segue.example.com", headers={"Origin": ORIGIN})


async def test_visitor_rate(settings: Settings, clock: FrozenClock) -> None:
    async with limited(settings, clock, visitor_rate="3/minute") as service:
        page, other = WebPage(service), WebPage(service)
        for number in range(2):
            await page.send(did("Looked", messageId=f"m-{number}"))
        assert (await page.get()).status_code == 200
        clock.instant += 20 * SECOND + 1
        for refused in (await page.post(did("Looked")), await page.get()):
            assert is_problem(refused, 429, "rate_limited")
            assert refused.headers["retry-after"] == "40"
            assert "Retry-After" in refused.headers["access-control-expose-headers"]
        assert await service.app.state.services.pool.fetchval("SELECT count(*) FROM touchpoints") == 2
        await other.send(did("Looked"))
        for _ in range(5):
            await page.post(did("Looked"), id=page.id, proof=other.proof)
        clock.instant += 40 * SECOND - 2
        assert (await page.post(did("Looked"))).status_code == 429
        clock.instant += 1
        await page.send(did("Looked"))


async def test_unproven_visitor_claim_does_not_count_for_the_visitor(settings: Settings, clock: FrozenClock) -> None:
    async with limited(settings, clock, visitor_rate="1/minute") as service:
        page, attacker = WebPage(service), WebPage(service)
        for _ in range(5):
            await attacker.send(did("Looked"), id=page.id, proof=attacker.proof)
        await page.send(did("Looked"))


async def test_key_rate(settings: Settings, clock: FrozenClock) -> None:
    async with limited(settings, clock, key_rate="2/second") as service:
        body = {"type": "track", "event": "Looked", "userId": "user-1"}
        keyed = (service.keys.write_key, "")
        answers = [await service.client.post("/v1/track", json=body, auth=keyed) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert answers[-1].headers["retry-after"] == "1"
        created = await service.tell("POST", "/v1/keys", {"kind": "write", "source": "default"}, 201)
        assert (await service.client.post("/v1/track", json=body, auth=(created["key"], ""))).status_code == 200
        clock.instant += SECOND
        assert (await service.client.post("/v1/track", json=body, auth=keyed)).status_code == 200


async def test_public_key_above_its_rate_serves_quiet_addresses(settings: Settings, clock: FrozenClock) -> None:
    async with limited(settings, clock, key_rate="200/minute") as service:
        keyed = (service.keys.write_key, "")
        body = {"type": "track", "event": "Looked", "userId": "user-1"}
        async with from_address(service, "192.0.2.1") as attacker, from_address(service, "192.0.2.2") as visitor:
            statuses = [(await attacker.post("/v1/track", auth=keyed)).status_code for _ in range(220)]
            assert statuses == [400] * 200 + [429] * 20
            visits = [(await visitor.post("/v1/track", json=body, auth=keyed)).status_code for _ in range(3)]
            assert visits == [200, 200, 429]
            clock.instant += 60 * SECOND
            assert (await visitor.post("/v1/track", json=body, auth=keyed)).status_code == 200


async def test_address_rate(settings: Settings, clock: FrozenClock) -> None:
    async with limited(settings, clock, address_rate="2/minute") as service:
        async with from_address(service, "192.0.2.1") as one, from_address(service, "192.0.2.2") as two:
            body = {"batch": [], "writeKey": service.keys.write_key}
            assert [(await one.post("/v1/b", json=body)).status_code for _ in range(3)] == [200, 200, 429]
            refused = await one.get("/v1/me")
            assert is_problem(refused, 429, "rate_limited")
            assert refused.headers["access-control-allow-origin"] == ORIGIN
            assert (await one.options("/v1/b", headers={"Access-Control-Request-Method": "POST"})).status_code == 204
            assert (await two.post("/v1/b", json=body)).status_code == 200
            del one.headers["Origin"]
            assert (await one.post("/v1/b", json=body)).status_code == 200, (
                "a request of the site's server does not count"
            )
            assert (await one.get("/v1/me")).status_code == 429, "a route that only pages call always counts"
        await service.ask("/v1/keys")


@pytest.mark.parametrize("path", ["/track?data=W10=", "/v1/pixel/track", "/pixel/v1/page", "/sourceConfig/", "/v1/me"])
async def test_visitor_requests_without_origin_count_for_the_address(
    settings: Settings, clock: FrozenClock, path: str
) -> None:
    """Image requests and batches with a visitor claim count for the address even if they have no Origin header."""
    async with (
        limited(settings, clock, address_rate="3/minute") as service,
        from_address(service, "192.0.2.1") as one,
    ):
        del one.headers["Origin"]
        page = WebPage(service)
        batch = {"batch": [did("Looked", anonymousId=page.id)], "writeKey": page.key}
        claiming = {**batch, "visitor": {"id": page.id, "proof": page.proof}}
        for claim in (claiming, {**batch, "visitor": {"id": "forged"}}):
            assert (await one.post("/v1/b", json=claim)).status_code == 200
        assert (await one.get(path)).status_code != 429
        for refused in (await one.get(path), await one.post("/v1/b", json=claiming)):
            assert is_problem(refused, 429, "rate_limited")
            assert refused.headers["retry-after"] == "60"
        for server_body in (batch, {**batch, "visitor": None}):
            assert (await one.post("/v1/b", json=server_body)).status_code == 200, "a batch of a server does not count"


async def test_address_of_a_server_has_its_own_limit(settings: Settings, clock: FrozenClock) -> None:
    """Requests without an Origin are limited too, before their body is read. A server key is exempt, probes too."""
    async with (
        limited(settings, clock, server_address_rate="2/minute") as service,
        from_address(service, "192.0.2.1") as one,
        from_address(service, "192.0.2.2") as two,
    ):
        del one.headers["Origin"], two.headers["Origin"]
        body = {"batch": [], "writeKey": service.keys.write_key}
        server_key = (
            await service.tell("POST", "/v1/keys", {"kind": "write", "source": "default", "trust": "server"}, 201)
        )["key"]
        assert [(await one.post("/v1/b", json=body)).status_code for _ in range(3)] == [200, 200, 429]

        async def unread_body() -> AsyncIterator[bytes]:
            raise AssertionError("the body is read")
            yield b""

        for path in ("/v1/b", "/v1/webhooks/shop", "/v1/customers/user-1"):
            refused = await one.post(path, content=unread_body())
            assert is_problem(refused, 429, "rate_limited")
        assert is_problem(await one.post("/v1/b", json=body, auth=("wk_unknown", "")), 429, "rate_limited")
        assert (await one.post("/v1/b", json=body, auth=(server_key, ""))).status_code == 200
        assert (await one.get("/readyz")).status_code == 200
        assert (await two.post("/v1/b", json=body)).status_code == 200


async def test_server_keys_have_their_own_limit(settings: Settings, clock: FrozenClock) -> None:
    async with limited(settings, clock, key_rate="1/minute", server_key_rate="2/minute") as service:
        body = {"kind": "write", "source": "default", "trust": "server"}
        server_key = (await service.tell("POST", "/v1/keys", body, 201))["key"]
        for key, expected in ((service.keys.write_key, [200, 429, 429]), (server_key, [200, 200, 429])):
            answers = [await service.client.post("/v1/b", json={"batch": []}, auth=(key, "")) for _ in range(3)]
            assert [answer.status_code for answer in answers] == expected


def test_every_address_and_key_has_a_default_limit() -> None:
    settings = Settings()
    assert all((settings.key_rate, settings.server_key_rate, settings.address_rate, settings.server_address_rate))


async def test_request_with_origin_and_visitor_counts_once(settings: Settings, clock: FrozenClock) -> None:
    async with (
        limited(settings, clock, address_rate="2/minute") as service,
        from_address(service, "192.0.2.1") as one,
    ):
        page = WebPage(service)
        claiming = {"batch": [], "writeKey": page.key, "visitor": {"id": page.id, "proof": page.proof}}
        assert [(await one.post("/v1/b", json=claiming)).status_code for _ in range(3)] == [200, 200, 429]


async def test_ipv6_network_counts_as_one_address(settings: Settings, clock: FrozenClock) -> None:
    async with limited(settings, clock, address_rate="1/minute") as service:
        statuses = {}
        for address in (
            "2001:db8::1",
            "2001:db8::ffff:2",
            "2001:db8:0:1::1",
            "::ffff:192.0.2.1",
            "192.0.2.1",
            "fe80::1%eth0",
        ):
            async with from_address(service, address) as client:
                statuses[address] = (await client.post("/v1/m", content=b"")).status_code
        assert statuses == {
            "2001:db8::1": 200,
            "2001:db8::ffff:2": 429,
            "2001:db8:0:1::1": 200,
            "::ffff:192.0.2.1": 200,
            "192.0.2.1": 429,
            "fe80::1%eth0": 200,
        }


async def test_refused_request_body_is_not_read(settings: Settings, clock: FrozenClock) -> None:
    async with limited(settings, clock, address_rate="1/minute") as service:
        async with from_address(service, "192.0.2.1") as client:
            await client.post("/v1/m", content=b"")
            read = 0

            async def body() -> AsyncIterator[bytes]:
                nonlocal read
                for _ in range(10):
                    read += 1
                    yield b"x" * 1000

            assert (await client.post("/v1/b", content=body())).status_code == 429
        assert read <= 1


async def test_untrusted_proxy_is_logged_once(settings: Settings, clock: FrozenClock) -> None:
    async with (
        limited(settings, clock, address_rate="1/minute") as service,
        from_address(service, "192.0.2.1") as client,
    ):
        with capture_logs() as logs:
            await client.post("/v1/m", content=b"", headers={"X-Forwarded-For": "198.51.100.7"})
            assert logs == []
            for forwarded in ("192.0.2.1", "198.51.100.8", "198.51.100.9"):
                refused = await client.post("/v1/m", content=b"", headers={"X-Forwarded-For": forwarded})
                assert refused.status_code == 429
    assert [(entry["event"], entry["proxy"]) for entry in logs] == [("forwarded_for.ignored", "192.0.2.1")]


async def test_without_limits_no_request_is_refused(settings: Settings, clock: FrozenClock) -> None:
    async with limited(settings, clock) as service:
        page = WebPage(service)
        for _ in range(5):
            await page.send(did("Looked"))
            assert (await page.get()).status_code == 200


async def test_counters_expire_and_are_bounded() -> None:
    clock = FrozenClock(NOON)
    counts = CounterStorage(clock.now, counters_max=100)
    for number in range(250):
        assert await counts.incr(f"k{number}", 60) == 1
    assert len(counts) == 100
    assert await counts.get("k249") == 1
    assert await counts.get("k0") == 0
    clock.instant += 60 * SECOND
    assert await counts.get("k249") == 0
    for number in range(120):
        await counts.incr(f"n{number}", 60)
    assert len(counts) <= 120
    assert not [number for number in range(250) if await counts.get(f"k{number}")]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40)), max_size=60), st.integers(1, 5))
def test_window_allows_exactly_the_rate(requests: list[tuple[int, int]], amount: int) -> None:
    """Compare with a simple model, in which a window of one minute starts with its first request."""

    async def compare() -> None:
        clock = FrozenClock(NOON)
        settings = Settings.model_construct(key_rate=f"{amount}/minute", address_rate=None, visitor_rate=None)
        rates = RateLimits(settings, clock.now)
        model: dict[int, tuple[int, int]] = {}
        for who, seconds in requests:
            clock.instant += seconds * SECOND
            begun, count = model.get(who, (0, 0))
            if clock.instant >= begun + 60 * SECOND:
                begun, count = clock.instant, 0
            model[who] = begun, count + 1
            if count < amount:
                await rates.count_key(str(who), "public")
                continue
            with pytest.raises(RateLimited) as refused:
                await rates.count_key(str(who), "public")
            assert refused.value.retry_after_seconds == (begun + 60 * SECOND - clock.instant) // SECOND

    asyncio.run(compare())


@pytest.mark.parametrize("rate", ["x", "10", "10/fortnight", "0/minute", "-1/minute", "10/minute/minute", "1e3/minute"])
def test_invalid_rate_is_refused_at_startup(rate: str) -> None:
    with pytest.raises(ValueError, match="key_rate"):
        Settings.model_validate({"key_rate": rate})


def test_empty_rate_means_no_limit() -> None:
    assert Settings.model_validate({"address_rate": ""}).address_rate is None
