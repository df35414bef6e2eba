"""Fixture of the X connector: HMAC-SHA256 of the body in base64."""

from __future__ import annotations

import hmac
from base64 import b64encode
from typing import Any

from app.connectors.tools.x import CONNECTOR
from tests.support.tool_fixture import Case, Fixture, SignedWith, Touchpoint, json_body

_AT = "2026-05-04T10:00:00Z"
_WHO = "x:200"
_USER = {"id_str": "200", "screen_name": "someone"}
_BRAND = {"id_str": "100", "screen_name": "brand"}


def sign(body: bytes, secret: str, now: int, url: str) -> SignedWith:
    del now, url
    mac = b64encode(hmac.new(secret.encode(), body, "sha256").digest()).decode()
    return {"x-twitter-webhooks-signature": f"sha256={mac}"}, {}


def _body(**lists: object) -> bytes:
    return json_body({"for_user_id": "100", **lists})


def _post(id: str, second: int = 0, user: dict[str, Any] = _USER, **more: object) -> dict[str, Any]:
    return {
        "id_str": id,
        "timestamp_ms": str(1777888800000 + second * 1000),
        "text": f"text of {id}",
        "user": user,
        **more,
    }


def _activity(type: str, second: int, source: object = _USER, target: object = _BRAND) -> dict[str, Any]:
    stamp = str(1777888800000 + second * 1000)
    return {"type": type, "created_timestamp": stamp, "source": source, "target": target}


def _at(second: int) -> str:
    return f"2026-05-04T10:00:{second:02d}Z"


FIXTURE = Fixture(
    kind="x",
    secret="consumer-secret",
    sign=sign,
    sample=Case(
        "a mention",
        CONNECTOR.sample,
        _WHO,
        (
            Touchpoint(
                "social.mentioned",
                "social",
                _AT,
                {"post_id": "900", "kind": "mention", "screen_name": "someone", "lang": "en"},
                {"private": {"body": "@brand where is my parcel?"}},
            ),
        ),
        identities=(_WHO,),
    ),
    several=Case(
        "a reply, a quote, a retweet, and two posts of the brand",
        _body(
            tweet_create_events=[
                _post("1", 0, in_reply_to_status_id_str="0"),
                _post("2", 1, quoted_status={"id_str": "0"}, extended_tweet={"full_text": "the whole of it"}),
                _post("3", 2, retweeted_status={"id_str": "0"}),
                _post("4", 3, _BRAND),
                _post("5", 4, _BRAND, in_reply_to_status_id_str="1"),
            ]
        ),
        _WHO,
        (
            Touchpoint("social.mentioned", "social", _at(0), {"kind": "reply", "in_reply_to": "0"}),
            Touchpoint(
                "social.mentioned",
                "social",
                _at(1),
                {"kind": "quote", "original_post_id": "0"},
                {"private": {"body": "the whole of it"}},
            ),
            Touchpoint("x.retweet", "social", _at(2), {"original_post_id": "0"}, {"private": None}),
        ),
        ignored=2,
    ),
    unknown=Case(
        "an unknown list",
        _body(teleport_events=[{"id": "t-1", "created_timestamp": "1777888800000", "user": _USER}]),
        _WHO,
        (Touchpoint("x.teleport", "social", _AT),),
    ),
    non_ascii=Case(
        "a mention in Korean",
        _body(tweet_create_events=[_post("1", text="@brand 감사합니다", lang="ko")]),
        _WHO,
        (Touchpoint("social.mentioned", "social", _AT, {"lang": "ko"}, {"private": {"body": "@brand 감사합니다"}}),),
    ),
    times=(
        Case(
            "milliseconds as text, X's date format, ISO 8601 and an invalid time",
            _body(
                tweet_create_events=[
                    _post("1"),
                    _post("2", timestamp_ms=None, created_at="Mon May 04 12:00:01 +0200 2026"),
                    _post("3", timestamp_ms=None, created_at="2026-05-04T10:00:02.000Z"),
                    _post("4", timestamp_ms=None, created_at="Mon May 99"),
                ]
            ),
            _WHO,
            (
                Touchpoint("social.mentioned", "social", _at(0)),
                Touchpoint("social.mentioned", "social", _at(1)),
                Touchpoint("social.mentioned", "social", _at(2)),
                Touchpoint("social.mentioned", "social", "2026-05-05T12:00:00Z"),
            ),
        ),
    ),
    malformed=Case(
        "three invalid events and a valid one",
        _body(
            tweet_create_events=[{"id_str": "1"}, 7, _post("2")],
            direct_message_events=[{"id": "3"}],
        ),
        _WHO,
        (Touchpoint("social.mentioned", "social", _AT),),
        rejected=3,
    ),
    others=(
        Case(
            "likes and follows, also by the brand",
            _body(
                favorite_events=[
                    {"id": "f-1", "timestamp_ms": 1777888800000, "favorited_status": {"id_str": "9"}, "user": _USER},
                    {"id": "f-2", "timestamp_ms": 1777888800000, "favorited_status": {"id_str": "8"}, "user": _BRAND},
                ],
                follow_events=[_activity("follow", 1), _activity("unfollow", 2), _activity("follow", 3, _BRAND, _USER)],
            ),
            _WHO,
            (
                Touchpoint("social.liked", "social", _at(0), {"post_id": "9", "screen_name": "someone"}),
                Touchpoint("social.followed", "social", _at(1)),
                Touchpoint("x.unfollow", "social", _at(2)),
            ),
            ignored=2,
        ),
        Case(
            "blocks and mutes by the brand, and a user who unblocks it",
            _body(
                block_events=[_activity("block", 0, _BRAND, _USER), _activity("unblock", 1, _BRAND, "200")],
                mute_events=[_activity("mute", 2, _BRAND, _USER)],
                unblock_events=[_activity("unblock", 3)],
            ),
            _WHO,
            (
                Touchpoint("x.block", "social", _at(0)),
                Touchpoint("x.unblock", "social", _at(1)),
                Touchpoint("x.mute", "social", _at(2)),
                Touchpoint("x.unblock", "social", _at(3)),
            ),
        ),
        Case(
            "messages, read receipts and typing indicators",
            _body(
                direct_message_events=[
                    {
                        "id": "dm-1",
                        "created_timestamp": "1777888800000",
                        "message_create": {"sender_id": "200", "message_data": {"text": "hello"}},
                    },
                    {
                        "id": "dm-2",
                        "created_timestamp": "1777888801000",
                        "message_create": {"sender_id": "100", "message_data": {"text": "from us"}},
                    },
                ],
                direct_message_mark_read_events=[
                    {"created_timestamp": "1777888802000", "sender_id": "200", "last_read_event_id": "dm-2"}
                ],
                direct_message_indicate_typing_events=[{"created_timestamp": "1777888803000", "sender_id": "200"}],
                users={"200": {"id": "200", "screen_name": "someone"}},
            ),
            _WHO,
            (
                Touchpoint(
                    "social.message_received",
                    "social",
                    _at(0),
                    {"message_id": "dm-1", "screen_name": "someone"},
                    {"private": {"body": "hello"}},
                ),
                Touchpoint("x.direct_message_mark_read", "social", _at(2), {"last_read": "dm-2"}),
            ),
            ignored=1,
        ),
        Case("revoked access, which concerns no person", _body(user_event={"revoke": {"target": {"app_id": "1"}}})),
        Case("no lists: the whole body is quarantined", _body(), rejected=1),
    ),
)
