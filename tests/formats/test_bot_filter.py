"""Bots through the API: apart and let in again, dropped, kept; and what people's browsers send is untouched."""

from __future__ import annotations

from typing import Any

import pytest

GOOGLEBOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
PAGE = {"url": "https://shop.example.com/", "referrer": "https://www.google.com/"}


def page(message_id: str = "m-1", **context: Any) -> dict[str, Any]:
    said = {"library": {"name": "segue.js"}, "page": PAGE, "userAgent": GOOGLEBOT} | context
    return {"type": "page", "messageId": message_id, "anonymousId": "a-1", "context": said}


async def send(service: Any, *messages: dict[str, Any], **options: Any) -> Any:
    body = {"batch": list(messages), "writeKey": service.keys.write_key}
    response = await service.client.post("/v1/batch", json=body, **options)
    assert response.status_code == 200
    return response.json()


async def choose(service: Any, bots: str) -> None:
    changed = await service.tell("PUT", "/v1/sources/default", {"bots": bots})
    assert changed["bots"] == bots


async def test_bots_are_set_apart_and_can_be_let_in(service: Any) -> None:
    receipt = await send(service, page(), page("m-2", userAgent="Mozilla/5.0 Chrome/140"))
    assert (receipt["accepted"], receipt["rejected"]) == (1, 1)
    [rejected] = receipt["rejections"]
    assert (rejected["index"], rejected["messageId"], rejected["code"]) == (0, "m-1", "bot")
    [kept] = (await service.ask("/v1/quarantine"))["items"]
    assert (kept["code"], kept["message_id"]) == ("bot", "m-1")
    assert 'segue_rejections_total{code="bot"} 1.0' in (await service.client.get("/metrics")).text

    receipt = await service.tell("POST", f"/v1/quarantine/{kept['id']}/replay")
    assert receipt["accepted"] == 1
    touchpoints = (await service.ask("/v1/customers/anonymous_id:a-1/touchpoints"))["items"]
    [let_in] = [each for each in touchpoints if each["message_id"] == "m-1"]
    assert let_in["context"]["client"]["device"] == "bot"
    assert let_in["channel"] == "search"
    assert (await send(service, page()))["rejected"] == 1
    assert (await service.tell("POST", f"/v1/quarantine/{kept['id']}/replay"))["duplicate"] == 1


async def test_dropped_ones_are_counted_and_not_kept(service: Any) -> None:
    await choose(service, "drop")
    receipt = await send(service, page(), {"type": "track", "anonymousId": "a"})
    assert receipt["rejected"] == 2
    assert {each["code"] for each in receipt["rejections"]} == {"bot", "missing_event"}
    assert [each["code"] for each in (await service.ask("/v1/quarantine"))["items"]] == ["missing_event"]
    assert 'segue_rejections_total{code="bot"} 1.0' in (await service.client.get("/metrics")).text


async def test_kept_ones_are_stored_as_bots(service: Any) -> None:
    await choose(service, "keep")
    assert (await send(service, page()))["accepted"] == 1
    rule = {"did": "page_viewed", "where": {"context.client.device": "bot"}}
    assert (await service.tell("POST", "/v1/segments/preview", {"rule": rule}))["count"] == 1


@pytest.mark.parametrize("library", ["analytics-node", "analytics-python"])
async def test_servers_may_have_any_user_agent(service: Any, library: str) -> None:
    message = page(library={"name": library}) | {"type": "track", "event": "Order Completed"}
    assert (await send(service, message, headers={"User-Agent": GOOGLEBOT}))["accepted"] == 1


async def test_the_header_counts_where_the_message_says_nothing(service: Any) -> None:
    message = page()
    del message["context"]["userAgent"]
    assert (await send(service, message, headers={"User-Agent": GOOGLEBOT}))["rejected"] == 1
    assert (await send(service, message, headers={"User-Agent": "python-httpx/0.28.1"}))["accepted"] == 1
