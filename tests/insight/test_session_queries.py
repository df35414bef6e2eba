"""Sessions of a customer over HTTP: they do not depend on arrival order, devices, late messages or merges."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from itertools import count
from typing import Any

import pytest

from app.config import Settings
from app.formats.identifiers import parse_customer_reference
from app.formats.timestamps import rfc3339
from app.http.responses import write_cursor
from app.insight.session_queries import TEXT_CHARS_MAX, SessionQueries
from app.postgres.pool import FrozenClock
from app.touchpoint import HOUR, MINUTE, SECOND
from tests.support.running_app import NOON, RunningApp

Start = Callable[..., AbstractAsyncContextManager[RunningApp]]

HALF_HOUR = 30 * MINUTE
BEGIN = NOON - 12 * HOUR
PHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/17.5 Mobile/15E148 Safari/604.1"
)

_numbers = count()


def message(at: int, type: str, by: dict[str, str], **fields: Any) -> dict[str, Any]:
    context = {"library": {"name": "analytics.js", "version": "next-1.84.3"}, **fields.pop("context", {})}
    id = fields.pop("id", f"m-{next(_numbers):05}")
    return {"type": type, "messageId": id, "timestamp": rfc3339(BEGIN + at), **by, "context": context, **fields}


def view(at: int, path: str = "/", by: str = "anon-1", **fields: Any) -> dict[str, Any]:
    bare_path = path.partition("?")[0]
    page = {"url": f"https://shop.example.com{path}", "path": bare_path, "title": bare_path[1:].title()}
    return message(at, "page", {"anonymousId": by}, properties=page, **fields)


def did(at: int, event: str = "Product Added", by: str = "anon-1", **fields: Any) -> dict[str, Any]:
    return message(at, "track", {"anonymousId": by}, event=event, **fields)


def login(at: int, user: str, by: str) -> dict[str, Any]:
    return message(at, "identify", {"anonymousId": by, "userId": user})


async def sessions(service: RunningApp, customer: str = "anonymous_id:anon-1", **params: Any) -> list[Any]:
    return (await service.ask(f"/v1/customers/{customer}/sessions", params=params))["items"]


async def sizes(service: RunningApp, customer: str = "anonymous_id:anon-1", **params: Any) -> list[int]:
    """Return the number of touchpoints in each session, oldest session first."""
    return [session["touchpoints"] for session in reversed(await sessions(service, customer, **params))]


async def test_session_contains_all_figures(service: RunningApp) -> None:
    await service.send(
        view(
            0,
            "/hats?utm_source=news&utm_medium=email",
            id="first",
            context={"sessionId": 1767225600000, "userAgent": PHONE},
        ),
        did(5 * SECOND),
        view(65 * SECOND + 1, "/cart", context={"userAgent": PHONE, "page": {"referrer": "https://shop.example.com/"}}),
        did(70 * SECOND, "Page Left"),
    )
    answer = await service.ask("/v1/customers/anonymous_id:anon-1/sessions")
    customer = await service.ask("/v1/customers/anonymous_id:anon-1")
    [session] = answer.pop("items")
    assert answer.pop("as_of")
    assert answer == {
        "id": customer["id"],
        "totals": {"count": 1, "bounce_rate": 0.0, "average_duration_seconds": 70.0, "pages_per_session": 2.0},
        "since": None,
        "next_cursor": None,
    }
    assert session == {
        "started_at": rfc3339(BEGIN),
        "ended_at": rfc3339(BEGIN + 70 * SECOND),
        "duration_seconds": 70.0,
        "open": False,
        "begun_by": "first",
        "message_id": "first",
        "source": "default",
        "pages": 2,
        "touchpoints": 4,
        "bounced": False,
        "channel": "email",
        "acquisition": {
            "group": "Email",
            "source": "news",
            "medium": "email",
            "campaign": None,
            "term": None,
            "content": None,
            "click_id": None,
        },
        "entry_page": {
            "url": "https://shop.example.com/hats?utm_source=news&utm_medium=email",
            "path": "/hats",
            "title": "Hats",
            "name": None,
        },
        "exit_page": {"url": "https://shop.example.com/cart", "path": "/cart", "title": "Cart", "name": None},
        "devices": [{"type": "mobile", "os": "iOS", "browser": "Mobile Safari"}],
        "session_ids": ["1767225600000"],
    }


@pytest.mark.parametrize(("gap", "expected"), [(HALF_HOUR - 1, [2]), (HALF_HOUR, [1, 1]), (HALF_HOUR + 1, [1, 1])])
async def test_pause_of_half_an_hour_splits_sessions(service: RunningApp, gap: int, expected: list[int]) -> None:
    await service.send(view(0), view(gap))
    assert await sizes(service) == expected


@pytest.mark.parametrize(("gap", "open"), [(HALF_HOUR - 1, True), (HALF_HOUR, False)])
async def test_open_session_now_and_in_the_past(
    settings: Settings, clock: FrozenClock, start: Start, gap: int, open: bool
) -> None:
    async with start(settings, clock) as service:
        clock.instant -= gap
        await service.send(view(NOON - BEGIN - gap), view(NOON - BEGIN - gap - HOUR))
        clock.instant += gap
        assert [session["open"] for session in await sessions(service)] == [open, False]
        clock.instant += HOUR
        assert [session["open"] for session in await sessions(service)] == [False, False]
        assert [session["open"] for session in await sessions(service, as_of=rfc3339(NOON))] == [open, False]


async def test_later_touchpoints_are_excluded_by_as_of(service: RunningApp) -> None:
    await service.send(view(0), view(MINUTE), view(2 * HOUR))
    assert await sizes(service) == [2, 1]
    assert await sizes(service, as_of=rfc3339(BEGIN + MINUTE)) == [2]
    assert await sizes(service, as_of=rfc3339(BEGIN + MINUTE - 1)) == [1]
    before = await service.ask("/v1/customers/anonymous_id:anon-1/sessions", params={"as_of": rfc3339(BEGIN - 1)})
    assert before["items"] == []
    assert before["totals"] == {
        "count": 0,
        "bounce_rate": None,
        "average_duration_seconds": None,
        "pages_per_session": None,
    }


async def test_future_touchpoint_belongs_to_no_session(settings: Settings, clock: FrozenClock, start: Start) -> None:
    async with start(settings, clock) as service:
        await service.send(view(NOON - BEGIN), view(NOON - BEGIN + 10 * MINUTE))
        assert await sizes(service) == [1]
        clock.instant += 10 * MINUTE
        assert await sizes(service) == [2]


@pytest.mark.parametrize("seed", range(6))
async def test_sessions_are_independent_of_order_and_batches(service: RunningApp, seed: int) -> None:
    rng = random.Random(seed)
    gaps = [0, 1, MINUTE, HALF_HOUR - 1, HALF_HOUR, HALF_HOUR + 1]
    paths = ["/", "/hats", "/?utm_source=news&utm_medium=email&utm_campaign=may", "/?gclid=abc"]
    at, messages = 0, []
    for number in range(25):
        at += rng.choice(gaps)
        kind = rng.randrange(3)
        fields = {"id": f"m-{rng.randrange(5)}-{number}", "by": rng.choice(["laptop", "phone"])}
        messages.append(view(at, rng.choice(paths), **fields) if kind else did(at, **fields))
    messages += [login(0, "user-1", "laptop"), login(1, "user-1", "phone")]

    def with_prefix(message: dict[str, Any], prefix: str) -> dict[str, Any]:
        ids: dict[str, Any] = {
            name: f"{prefix}-{message[name]}" for name in ("anonymousId", "userId") if name in message
        }
        return {**message, **ids, "messageId": prefix + message["messageId"]}

    async def read_sessions(prefix: str) -> Any:
        answer = await service.ask(f"/v1/customers/{prefix}-user-1/sessions")
        items = [{**session, "message_id": session["message_id"].removeprefix(prefix)} for session in answer["items"]]
        return items, answer["totals"]

    await service.send(*(with_prefix(message, "a") for message in messages))
    for prefix in "bc":
        shuffled = [with_prefix(message, prefix) for message in rng.sample(messages, len(messages))]
        while shuffled:
            size = rng.randint(1, 9)
            await service.send(*shuffled[:size])
            shuffled = shuffled[size:]
    assert await read_sessions("a") == await read_sessions("b") == await read_sessions("c")
    assert (await read_sessions("a"))[1]["count"] > 1


async def test_tabs_and_devices_of_one_customer_share_a_session(service: RunningApp) -> None:
    await service.send(
        view(0, by="laptop"),
        view(10 * MINUTE, by="phone", context={"userAgent": PHONE}),
        view(25 * MINUTE, by="laptop"),
        view(50 * MINUTE, by="phone", context={"userAgent": PHONE}),
    )
    assert await sizes(service, "anonymous_id:laptop") == [2]
    assert await sizes(service, "anonymous_id:phone") == [1, 1]
    await service.send(login(55 * MINUTE, "user-1", "laptop"), login(56 * MINUTE, "user-1", "phone"))
    assert await sizes(service, "user-1") == [4]
    assert await sizes(service, "anonymous_id:phone") == [4]


async def test_merge_joins_sessions_and_undo_splits_them(service: RunningApp) -> None:
    await service.trust_write_key()
    await service.send(
        view(0, by="laptop"),
        login(0, "user-1", "laptop"),
        view(20 * MINUTE, by="phone"),
        login(20 * MINUTE, "user-2", "phone"),
        view(40 * MINUTE, by="laptop"),
    )
    assert await sizes(service, "user-1") == [1, 1]
    assert await sizes(service, "user-2") == [1]
    alias = {"type": "alias", "previousId": "user-1", "userId": "user-2", "messageId": "alias"}
    await service.send(alias)
    assert await sizes(service, "user-1") == await sizes(service, "user-2") == [3]
    link = {"weaker": "user_id:user-1", "stronger": "user_id:user-2"}
    await service.tell("POST", "/v1/customers/links/undo", link)
    assert await sizes(service, "user-1") == [1, 1]
    assert await sizes(service, "user-2") == [1]


async def test_late_touchpoint_joins_or_splits_sessions(service: RunningApp) -> None:
    await service.send(view(0), view(50 * MINUTE), did(51 * MINUTE))
    assert await sizes(service) == [1, 2]
    await service.send(did(25 * MINUTE))
    assert await sizes(service) == [4]
    await service.send(view(26 * MINUTE, "/?utm_source=news&utm_medium=email&utm_campaign=may"))
    assert await sizes(service) == [2, 3]


async def test_campaign_begins_a_session(service: RunningApp) -> None:
    await service.send(
        view(0, "/?utm_source=news&utm_medium=email&utm_campaign=april"),
        view(MINUTE, "/hats", context={"page": {"referrer": "https://shop.example.com/"}}),
        view(2 * MINUTE, "/?utm_source=news&utm_medium=email&utm_campaign=may"),
        view(3 * MINUTE, "/cart", context={"page": {"referrer": "https://shop.example.com/"}}),
    )
    may, april = await sessions(service)
    assert [may["acquisition"][name] for name in ("source", "medium", "campaign")] == ["news", "email", "may"]
    assert april["acquisition"]["campaign"] == "april"
    assert [(session["begun_by"], session["pages"]) for session in (april, may)] == [("first", 2), ("campaign", 2)]


async def test_two_clicks_on_one_ad_begin_two_sessions(service: RunningApp) -> None:
    await service.send(view(0, "/?gclid=abc"), view(1, "/?gclid=abc"), view(2, "/?a=1&gclid=xyz#top"), view(3, "/hats"))
    assert await sizes(service) == [2, 2]


@pytest.mark.parametrize("name", ["ScCid", "ranSiteID", "SCCID"])
async def test_click_id_is_found_in_any_case(service: RunningApp, name: str) -> None:
    await service.send(view(0, f"/?{name}=abc"), view(1, f"/?{name}=abc"), view(2, f"/?{name}=xyz"), view(3, "/hats"))
    assert await sizes(service) == [2, 2]


async def test_email_support_and_server_events_belong_to_no_session(service: RunningApp) -> None:
    def other_event(channel: str, library: str) -> dict[str, Any]:
        return did(MINUTE, "Something", context={"channel": channel, "library": {"name": library}})

    await service.send(
        view(0),
        other_event("email", "analytics-python"),
        other_event("support", "analytics-node"),
        other_event("server", "analytics-node"),
        login(0, "user-1", "anon-1"),
    )
    assert await sizes(service) == [1]


async def test_app_screens_form_sessions(service: RunningApp) -> None:
    context = {
        "library": {"name": "analytics-ios", "version": "4.1"},
        "device": {"type": "ios", "model": "iPhone7,2"},
        "os": {"name": "iOS", "version": "17.5"},
    }
    await service.send(message(0, "screen", {"anonymousId": "anon-1"}, name="Home", context=context))
    [session] = await sessions(service)
    assert session["entry_page"] == {"url": None, "path": None, "title": None, "name": "Home"}
    assert session["devices"] == [{"type": "ios", "os": "iOS", "browser": None}]
    assert session["bounced"] is True


async def test_pagination_is_newest_first(service: RunningApp) -> None:
    await service.send(*(view(number * HOUR, f"/{number}") for number in range(7)))
    expected = await sessions(service)
    assert [session["entry_page"]["path"] for session in expected] == [f"/{number}" for number in (6, 5, 4, 3, 2, 1, 0)]
    path = "/v1/customers/anonymous_id:anon-1/sessions"
    for limit in (1, 2, 3, 6, 7, 8):
        assert await service.all_of(path, limit=limit) == expected
    page = await service.ask(path, params={"limit": 3})
    assert page["totals"]["count"] == 7
    assert len(page["items"]) == 3


async def test_cursor_keeps_its_as_of(service: RunningApp) -> None:
    path = "/v1/customers/anonymous_id:anon-1/sessions"
    await service.send(*(view(number * HOUR) for number in range(3)))
    first = await service.ask(path, params={"limit": 1})
    second = await service.ask(path, params={"limit": 1, "cursor": first["next_cursor"]})
    assert second["as_of"] == first["as_of"]
    await service.ask(path, 400, params={"cursor": first["next_cursor"], "as_of": rfc3339(BEGIN)})
    await service.ask(path, 400, params={"cursor": write_cursor(BEGIN, "m")})
    await service.ask(path, 422, params={"limit": 0})
    await service.ask("/v1/customers/nobody/sessions", 404)
    assert (await service.client.get(path)).status_code == 401


async def test_touchpoint_limit_is_reported_as_since(service: RunningApp) -> None:
    await service.send(*(view(number * HOUR) for number in range(5)))
    pool = service.app.state.services.pool
    ids = [
        identity.id for identity in parse_customer_reference("anonymous_id:anon-1", service.app.state.services.settings)
    ]
    for limit, since in ((6, None), (5, BEGIN), (3, BEGIN + 2 * HOUR)):
        result = await SessionQueries(pool, limit).list_sessions(ids, NOON, None, 10)
        assert result.since == since
        assert result.totals.count == len(result.sessions) == min(limit, 5)


@pytest.mark.parametrize(
    "context",
    [
        {"sessionId": {"a": [1]}, "page": "x", "client": [], "device": 3, "os": None, "acquisition": [1, 2]},
        {"sessionId": [], "page": [{"url": 1}], "client": {"device": {"x": 1}}, "acquisition": {"group": {"a": 1}}},
        {"sessionId": "y" * 20_000, "library": "analytics.js"},
        {"library": {"name": ["x"]}, "channel": "web"},
    ],
)
async def test_values_of_unexpected_types_become_text_or_null(service: RunningApp, context: dict[str, Any]) -> None:
    properties = {"url": {"no": "text"}, "path": 5, "title": "z" * 5_000}
    await service.send({**view(0, context=context), "properties": properties}, view(MINUTE))
    [session] = await sessions(service)
    assert session["touchpoints"] == 2
    assert len(session["entry_page"]["title"]) == TEXT_CHARS_MAX
    assert all(len(id) <= TEXT_CHARS_MAX for id in session["session_ids"])
