"""Tests of the bot policies over the API: quarantine and replay, drop, and keep."""

from __future__ import annotations

from typing import Any

import pytest

GOOGLEBOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
PAGE = {"url": "https://shop.example.com/", "referrer": "https://www.google.com/"}


def page(message_id: str = "m-1", **context: Any) -> dict[str, Any]:
    merged = {"library": {"name": "segue.js"}, "page": PAGE, "userAgent": GOOGLEBOT} | context
    return {"type": "page", "messageId": message_id, "anonymousId": "a-1", "context": merged}


async def send(service: Any, *messages: dict[str, Any], **options: Any) -> Any:
    body = {"batch": list(messages), "writeKey": service.keys.write_key}
    response = await service.client.post("/v1/batch", json=body, **options)
    assert response.status_code == 200
    return response.json()


async def set_bot_policy(service: Any, bots: str) -> None:
    changed = await service.tell("PUT", "/v1/sources/default", {"bots": bots})
    assert changed["bots"] == bots


async def test_bots_are_quarantined_and_can_be_replayed(service: Any) -> None:
    receipt = await send(service, page(), page("m-2", userAgent="Mozilla/5.0 Chrome/140"))
    assert (receipt["accepted"], receipt["rejected"]) == (1, 1)
    [rejected] = receipt["rejections"]
    assert (rejected["index"], rejected["messageId"], rejected["code"]) == (0, "m-1", "bot")
    [row] = (await service.ask("/v1/quarantine"))["items"]
    assert (row["code"], row["message_id"]) == ("bot", "m-1")
    assert 'segue_rejections_total{code="bot"} 1.0' in (await service.client.get("/metrics")).text

    receipt = await service.tell("POST", f"/v1/quarantine/{row['id']}/replay")
    assert receipt["accepted"] == 1
    touchpoints = (await service.ask("/v1/customers/anonymous_id:a-1/touchpoints"))["items"]
    [replayed] = [touchpoint for touchpoint in touchpoints if touchpoint["message_id"] == "m-1"]
    assert replayed["context"]["client"]["device"] == "bot"
    assert replayed["channel"] == "search"
    assert (await send(service, page()))["rejected"] == 1
    assert (await service.tell("POST", f"/v1/quarantine/{row['id']}/replay"))["duplicate"] == 1


async def test_dropped_bots_are_counted_but_not_quarantined(service: Any) -> None:
    await set_bot_policy(service, "drop")
    receipt = await send(service, page(), {"type": "track", "anonymousId": "a"})
    assert receipt["rejected"] == 2
    assert {item["code"] for item in receipt["rejections"]} == {"bot", "missing_event"}
    assert [item["code"] for item in (await service.ask("/v1/quarantine"))["items"]] == ["missing_event"]
    assert 'segue_rejections_total{code="bot"} 1.0' in (await service.client.get("/metrics")).text


async def test_kept_bots_are_stored_as_bots(service: Any) -> None:
    await set_bot_policy(service, "keep")
    assert (await send(service, page()))["accepted"] == 1
    rule = {"did": "page_viewed", "where": {"context.client.device": "bot"}}
    assert (await service.tell("POST", "/v1/segments/preview", {"rule": rule}))["count"] == 1


@pytest.mark.parametrize("library", ["analytics-node", "analytics-python"])
async def test_user_agent_of_a_server_is_not_filtered(service: Any, library: str) -> None:
    message = page(library={"name": library}) | {"type": "track", "event": "Order Completed"}
    assert (await send(service, message, headers={"User-Agent": GOOGLEBOT}))["accepted"] == 1


async def test_user_agent_header_is_the_fallback(service: Any) -> None:
    message = page()
    del message["context"]["userAgent"]
    assert (await send(service, message, headers={"User-Agent": GOOGLEBOT}))["rejected"] == 1
    assert (await send(service, message, headers={"User-Agent": "python-httpx/0.28.1"}))["accepted"] == 1
