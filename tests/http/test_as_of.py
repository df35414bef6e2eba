"""Tests of ``as_of``: a later read of a past instant returns the same as a service whose clock showed that instant."""

from __future__ import annotations

import random
from typing import Any

import pytest

from app.config import Settings
from app.formats.timestamps import rfc3339
from app.http.responses import write_cursor
from app.postgres.pool import FrozenClock, transact
from app.projection.project import refresh_customers
from app.rules.language.definitions import parse_rule, parse_value
from app.touchpoint import DAY, HOUR, SECOND
from tests.queries.test_valid_until import SEGMENTS, STAGES, a_life
from tests.support.running_app import NOON, RunningApp, running_app, track

CUSTOMERS = [f"user-{n}" for n in range(4)]
START, END = NOON - 15 * HOUR, NOON + 10 * HOUR
READS = [
    "",
    "/journey",
    "/journey?journey=trip",
    "/segments",
    "/segments?history=true",
    "/segments/nested/explain",
    "/segments/dated/explain",
    "/journeys/trip/explain",
]


async def define(service: RunningApp) -> None:
    for path in ("segments", "journeys"):
        for definition in (await service.ask(f"/v1/{path}"))["items"]:
            await service.tell("DELETE", f"/v1/{path}/{definition['key']}")
    stages = [{"key": key, "rule": rule} for key, rule in STAGES.items()]
    await service.tell("POST", "/v1/journeys", {"key": "trip", "stages": stages}, 201)
    for key, rule in SEGMENTS.items():
        await service.tell("POST", "/v1/segments", {"key": key, "rule": rule}, 201)


async def read_everything(service: RunningApp, as_of: str | None = None) -> dict[str, Any]:
    """Return the responses of all reads, each with its ETag."""
    params = {} if as_of is None else {"as_of": as_of}
    answers: dict[str, Any] = {}
    for user in CUSTOMERS:
        for read in READS:
            path = f"/v1/customers/{user}{read}"
            response = await service.client.get(path, headers=service.secret, params=_with(read, params))
            assert response.status_code == 200, response.text
            answers[path] = response.json(), response.headers["etag"]
    for key in SEGMENTS:
        path = f"/v1/segments/{key}"
        answers[f"{path}/members"] = await service.all_of(f"{path}/members", limit=3, **params)
        answers[f"{path}/count"] = await service.ask(f"{path}/count", params=params)
    answers["lookup"] = await service.tell("POST", "/v1/customers/lookup", {"customers": CUSTOMERS, **params})
    return answers


def _with(read: str, params: dict[str, str]) -> dict[str, str] | None:
    """Add the query of the path to the parameters, because httpx would drop it."""
    query = dict(part.split("=") for part in read.partition("?")[2].split("&") if part)
    return {**query, **params} or None


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_past_read_equals_the_read_at_that_instant(settings: Settings, seed: int) -> None:
    rng = random.Random(seed)
    clock = FrozenClock(START)
    async with running_app(settings, clock) as service:
        await define(service)
        lives = [message for user in CUSTOMERS for message in a_life(rng, user)]
        for message in lives:
            await service.send(message)
        edges = _list_edges(await read_everything(service))
        instants = sorted({*rng.sample(edges, min(4, len(edges))), *(rng.randint(START, END) for _ in range(4))})
        answers_at = {}
        for instant in instants:
            clock.instant = instant
            answers_at[instant] = await read_everything(service)
        clock.instant = END
        await refresh_some(service, END, rng)
        for instant in instants:
            assert await read_everything(service, rfc3339(instant)) == answers_at[instant], rfc3339(instant)
        assert len({str(answers) for answers in answers_at.values()}) > 1


def _list_edges(answers: dict[str, Any]) -> list[int]:
    """Return all ``valid_until`` instants of the responses."""
    from app.formats.timestamps import parse

    edges = set()
    for path, answer in answers.items():
        if path.endswith(tuple(f"/customers/{user}" for user in CUSTOMERS)):
            places = [*answer[0]["stages"].values(), *answer[0]["segments"]]
            edges |= {parse(place["valid_until"]) for place in places if place["valid_until"]}
    return sorted(instant for instant in edges if instant is not None and instant < END)


async def refresh_some(service: RunningApp, now: int, rng: random.Random) -> None:
    """Refresh some customers, and mark others as stale so that reads must replay them."""
    services = service.app.state.services
    ids = [row["id"] for row in await services.pool.fetch("SELECT id FROM customers ORDER BY id")]
    ruleset = services.registry.rules.current
    chosen = [id for id in ids if rng.random() < 0.5]
    await transact(
        services.pool, lambda connection: refresh_customers(connection, chosen, ruleset, now, services.settings)
    )
    stale = [id for id in ids if rng.random() < 0.3]
    await services.pool.execute("UPDATE customers SET stale = true WHERE id = ANY($1::uuid[])", stale)


async def test_late_messages_change_past_states(settings: Settings, clock: FrozenClock) -> None:
    """A message that arrives late changes reads of past instants."""
    async with running_app(settings, clock) as service:
        await service.tell("POST", "/v1/segments", {"key": "s", "rule": {"did": "e", "at_least": 2}}, 201)
        await service.send(track("e", timestamp=rfc3339(NOON - 5 * HOUR)))
        params = {"as_of": rfc3339(NOON - 2 * HOUR)}
        assert (await service.ask("/v1/segments/s/count", params=params))["count"] == 0
        await service.send(track("e", timestamp=rfc3339(NOON - 3 * HOUR)))
        assert (await service.ask("/v1/segments/s/count", params=params))["count"] == 1
        (stay,) = (
            item
            for item in (await service.ask("/v1/customers/user-1/segments", params={"history": "true", **params}))[
                "items"
            ]
            if item["key"] == "s"
        )
        assert (stay["since"], stay["left_at"]) == (rfc3339(NOON - 3 * HOUR), None)
        before = {"as_of": rfc3339(NOON - 3 * HOUR - 1)}
        assert (await service.ask("/v1/segments/s/count", params=before))["count"] == 0


async def test_read_before_the_first_message_is_empty(settings: Settings, clock: FrozenClock) -> None:
    async with running_app(settings, clock) as service:
        await service.tell("POST", "/v1/segments", {"key": "s", "rule": {"not": {"did": "f"}}}, 201)
        born = NOON - HOUR
        await service.send(track("e", timestamp=rfc3339(born)))
        await service.send(
            {"type": "identify", "userId": "user-1", "traits": {"plan": "pro"}, "timestamp": rfc3339(NOON - 1)}
        )
        past = {"as_of": rfc3339(born - 1)}
        customer = await service.ask("/v1/customers/user-1", params=past)
        assert (customer["segments"], customer["traits"], customer["as_of"]) == ([], {}, rfc3339(born - 1))
        assert {(place["stage"], place["since"]) for place in customer["stages"].values()} == {(None, None)}
        assert (await service.ask("/v1/customers/user-1/journey", params=past))["items"] == []
        assert (await service.ask("/v1/customers/user-1/touchpoints", params=past))["items"] == []
        why = await service.ask("/v1/customers/user-1/segments/s/explain", params=past)
        assert (why["member"], why["since"], why["valid_until"]) == (False, None, rfc3339(born))
        assert why["explanation"]["since"] is None
        assert await service.all_of("/v1/segments/s/members", **past) == []
        assert (await service.ask("/v1/segments/s/count", params=past))["count"] == 0
        at_birth = {"as_of": rfc3339(born)}
        assert (await service.ask("/v1/segments/s/count", params=at_birth))["count"] == 1
        assert (await service.ask("/v1/customers/user-1", params=at_birth))["traits"] == {}


async def test_past_read_excludes_later_touchpoints_and_links(settings: Settings, clock: FrozenClock) -> None:
    async with running_app(settings, clock) as service:
        await service.send(
            *[track("e", messageId=f"m-{n}", timestamp=rfc3339(NOON - (9 - n // 2) * HOUR)) for n in range(6)],
            track("e", messageId="m-9", anonymousId="anon-1", timestamp=rfc3339(NOON - HOUR)),
        )
        past = {"as_of": rfc3339(NOON - 8 * HOUR)}
        for limit in (1, 3, 50):
            items = await service.all_of("/v1/customers/user-1/touchpoints", limit=limit, **past)
            assert [item["message_id"] for item in items] == ["m-3", "m-2", "m-1", "m-0"]
        assert len((await service.ask("/v1/customers/user-1/links"))["items"]) == 1
        assert (await service.ask("/v1/customers/user-1/links", params=past))["items"] == []
        late = {"as_of": rfc3339(NOON)}
        assert len((await service.ask("/v1/customers/user-1/links", params=late))["items"]) == 1
        before_receipt = {"as_of": rfc3339(NOON - HOUR)}
        assert (await service.ask("/v1/customers/user-1/links", params=before_receipt))["items"] == []


async def test_cursor_keeps_the_as_of_of_its_first_page(settings: Settings, clock: FrozenClock) -> None:
    async with running_app(settings, clock) as service:
        await service.tell("POST", "/v1/segments", {"key": "s", "rule": {"did": "e", "within": "1d"}}, 201)
        await service.send(*[track("e", f"user-{n}", timestamp=rfc3339(NOON - 2 * DAY)) for n in range(5)])
        as_of = rfc3339(NOON - 2 * DAY + HOUR)
        first = await service.ask("/v1/segments/s/members", params={"as_of": as_of, "limit": 2})
        assert (len(first["items"]), first["as_of"]) == (2, as_of)
        clock.instant += DAY
        rest = {"limit": 3, "cursor": first["next_cursor"]}
        for params in (rest, {**rest, "as_of": as_of}):
            again = await service.ask("/v1/segments/s/members", params=params)
            assert (len(again["items"]), again["as_of"]) == (3, as_of)
        other = {**rest, "as_of": rfc3339(NOON - DAY)}
        assert (await service.ask("/v1/segments/s/members", 400, params=other))["code"] == "bad_request"


async def test_cursor_from_the_future_is_refused(settings: Settings, clock: FrozenClock) -> None:
    """The server accepts a cursor that is ahead of its clock by at most the clock skew between two processes."""
    async with running_app(settings, clock) as service:
        await service.send(track("Product Viewed"))
        for path, place in (
            ("segments/engaged/members", ["0" * 32]),
            ("customers/user-1/touchpoints", [NOON, "m", "default"]),
            ("quarantine", [1]),
        ):
            for at, status in ((NOON + 1_000, 200), (NOON + HOUR, 400), (253_402_300_799_999_999, 400)):
                answer = await service.ask(f"/v1/{path}", status, params={"cursor": write_cursor(at, *place)})
                assert status == 200 or (answer["code"], answer["path"]) == ("bad_request", "as_of"), path


async def test_unknown_body_field_is_refused(service: RunningApp) -> None:
    """A request with a misspelt ``as_of`` must not return the current state."""
    await service.send(track("Product Viewed"))
    for path, body in (
        ("lookup", {"customers": ["user-1"], "as_off": rfc3339(NOON)}),
        ("links/undo", {"weaker": "a", "stronger": "b", "as_off": 1}),
    ):
        answer = await service.tell("POST", f"/v1/customers/{path}", body, 400)
        assert answer["code"] == "bad_request"
        assert "as_off" in answer["message"]


async def test_entity_tag_depends_on_the_content_only(settings: Settings, clock: FrozenClock) -> None:
    async with running_app(settings, clock) as service:
        await service.tell("POST", "/v1/segments", {"key": "s", "rule": {"did": "e"}}, 201)
        await service.send(track("e", timestamp=rfc3339(NOON - 2 * HOUR)), track("f", timestamp=rfc3339(NOON - HOUR)))
        path = "/v1/customers/user-1/segments"

        async def tag(instant: int, none_match: str = "") -> tuple[int, str]:
            headers = {**service.secret, **({"If-None-Match": none_match} if none_match else {})}
            response = await service.client.get(path, headers=headers, params={"as_of": rfc3339(instant)})
            return response.status_code, response.headers["etag"]

        _, inside = await tag(NOON - HOUR)
        assert await tag(NOON - 2 * HOUR, inside) == (304, inside)
        status, before = await tag(NOON - 2 * HOUR - 1, inside)
        assert (status, before == inside) == (200, False)


async def test_openapi_declares_all_routes_with_entity_tags(service: RunningApp) -> None:
    await service.send(track("Product Viewed"))
    await service.tell("POST", "/v1/traits", {"key": "engaged", "value": {"count": "Product Viewed"}}, 201)
    await service.tell("POST", "/v1/journeys", {"key": "engaged", "stages": [{"key": "a", "rule": {"did": "e"}}]}, 201)
    await service.tell("POST", "/v1/sources", {"key": "engaged", "kind": "postmark"}, 201)
    await service.send({"type": "track", "userId": "user-1"}, expected=0)
    document = service.app.openapi()
    tagged = 0
    for path, operations in document["paths"].items():
        if "get" not in operations or not path.startswith("/v1/"):
            continue
        if {"collect", "pages"} & set(operations["get"]["tags"]):  # Routes for pages do not need a secret key.
            continue
        at = path.replace("{customer}", "user-1").replace("{key}", "engaged").replace("{id}", "1")
        response = await service.client.get(at, headers=service.secret)
        assert response.status_code == 200, at
        responses = operations["get"]["responses"]
        assert ("304" in responses) == ("etag" in response.headers), path
        if "304" in responses:
            tagged += 1
            assert "ETag" in responses["200"]["headers"], path
            assert "ETag" in responses["304"]["headers"], path
            again = {**service.secret, "If-None-Match": response.headers["etag"]}
            assert (await service.client.get(at, headers=again)).status_code == 304, path
    assert tagged == 16
    for union, parse in (("Rule", parse_rule), ("Value", parse_value)):
        (example,) = document["components"]["schemas"][union]["examples"]
        parse(example)
    assert document["components"]["schemas"]["Reading"]["examples"]


BAD = ["", "x", "now", "2026-01-01", "2026-01-01T00:00:00", "1767225600", "2026-13-01T00:00:00Z",
       "2026-01-01T00:00:00+25:00", "0000-01-01T00:00:00Z", "٢026-01-01T00:00:00Z", "1969-12-31T23:59:59.999999Z",
       rfc3339(NOON + 1), "9999-12-31T23:59:59Z", "2026-01-01T00:00:00Z" + "0" * 9_000]  # fmt: skip


@pytest.mark.parametrize("text", BAD, ids=range(len(BAD)))
async def test_invalid_as_of_is_refused(settings: Settings, clock: FrozenClock, text: str) -> None:
    async with running_app(settings, clock) as service:
        await service.send(track("Product Viewed"))
        paths = [f"customers/user-1{path}" for path in ("", "/journey", "/segments", "/touchpoints", "/links")]
        paths += ["customers/user-1/segments/engaged/explain", "customers/user-1/journeys/six-stage/explain"]
        for path in (*paths, "segments/engaged/members", "segments/engaged/count"):
            answer = await service.ask(f"/v1/{path}", 400, params={"as_of": text})
            assert (answer["code"], answer["path"]) == ("bad_request", "as_of"), path
        body = {"customers": ["user-1"], "as_of": text}
        assert (await service.tell("POST", "/v1/customers/lookup", body, 400))["code"] == "bad_request"


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-01T11:59:59Z",
        "2026-01-01t11:59:59z",
        "2026-01-01 12:59:59+01:00",
        "2026-01-01T11:59:59.0000001-00:00",
        "2025-12-31T23:59:59-12:00",
    ],
)
async def test_parameter_accepts_all_rfc_3339_forms(settings: Settings, clock: FrozenClock, text: str) -> None:
    async with running_app(settings, clock) as service:
        await service.send(track("Product Viewed", timestamp=rfc3339(NOON - DAY)))
        for written in (text, text.replace("+", "%2B")):
            answer = await service.ask(f"/v1/customers/user-1?as_of={written}")
            assert answer["as_of"] == rfc3339(NOON - SECOND)
