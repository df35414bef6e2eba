"""Fixture of the Meta connector: HMAC-SHA256 in hex, also over bodies with escaped non-ASCII text."""

from __future__ import annotations

import hmac
import json
from typing import Any

from app.connectors.tools.meta import CONNECTOR
from tests.support.tool_fixture import Case, Fixture, SignedWith, Touchpoint, json_body

_AT = "2026-05-04T10:00:00Z"
_WHO = "meta:1111:2222"
_USER = {"id": "2222", "name": "User"}
_STORY = {"open_graph_story_id": "s-1", "created_time": 1777888800}
_PAGE = {"id": "1111", "name": "Page"}


def sign(body: bytes, secret: str, now: int, url: str) -> SignedWith:
    del now, url
    old, new = (hmac.new(secret.encode(), body, digest).hexdigest() for digest in ("sha1", "sha256"))
    return {"X-Hub-Signature": f"sha1={old}", "X-Hub-Signature-256": f"sha256={new}"}, {}


def _body(*entries: dict[str, Any], object: str = "page") -> dict[str, Any]:
    return {"object": object, "entry": [{"id": "1111", "time": 1777888800, **entry} for entry in entries]}


def _change(field: str, **value: object) -> dict[str, Any]:
    return {"changes": [{"field": field, "value": value}]}


def _feed(item: str, second: int = 0, **more: object) -> dict[str, Any]:
    members = {"item": item, "verb": "add", "from": _USER, "created_time": 1777888800 + second, "post_id": "1111_1"}
    return _change("feed", **{**members, **more})


def _message(second: int = 0, sender: str = "2222", **message: object) -> dict[str, Any]:
    envelope = {"sender": {"id": sender}, "recipient": {"id": "1111"}, "timestamp": 1777888800000 + second * 1000}
    return {"messaging": [{**envelope, **message}]}


def _at(second: int) -> str:
    return f"2026-05-04T10:00:{second:02d}Z"


FIXTURE = Fixture(
    kind="meta",
    secret="app-secret",
    sign=sign,
    options={"verify_token": "a verify token"},
    sample=Case(
        "a comment",
        CONNECTOR.sample,
        _WHO,
        (
            Touchpoint(
                "social.commented",
                "social",
                "2026-05-04T09:59:59Z",
                {"platform": "facebook", "page_id": "1111", "post_id": "1111_1", "comment_id": "1_2", "message": None},
                {"private": {"body": "Is it in stock?"}},
            ),
        ),
        identities=(_WHO,),
    ),
    several=Case(
        "several entries and changes, some of the page itself",
        json_body(
            _body(
                {
                    "changes": [
                        *_feed("comment", 0, comment_id="c-1", message="one")["changes"],
                        *_feed("comment", 1, comment_id="c-1", message="two", verb="edited")["changes"],
                        *_feed("comment", 2, comment_id="c-2", **{"from": _PAGE}, message="from us")["changes"],
                    ]
                },
                _feed("reaction", 3, reaction_type="love"),
                _feed("reaction", 4, reaction_type="love", verb="remove"),
                _feed("like", 5),
                _feed("post", 6, message="On your wall"),
                _change("mention", sender_id="2222", post_id="9_9", created_time=1777888807, message="@page"),
                _change(
                    "ratings",
                    item="rating",
                    verb="add",
                    reviewer_id="2222",
                    created_time=1777888808,
                    recommendation_type="POSITIVE",
                    review_text="Nice",
                    open_graph_story_id="s-1",
                ),
                _feed("status", 9, **{"from": _PAGE}),
            )
        ),
        _WHO,
        (
            Touchpoint("social.commented", "social", _at(0), {"comment_id": "c-1"}, {"private": {"body": "one"}}),
            Touchpoint("meta.comment_edited", "social", _at(1), {}, {"private": {"body": "two"}}),
            Touchpoint("social.liked", "social", _at(3), {"reaction": "love"}),
            Touchpoint("meta.reaction_remove", "social", _at(4), {"reaction": "love"}),
            Touchpoint("social.liked", "social", _at(5)),
            Touchpoint("meta.post", "social", _at(6), {"message": None}, {"private": {"body": "On your wall"}}),
            Touchpoint("social.mentioned", "social", _at(7), {"post_id": "9_9"}),
            Touchpoint("review.submitted", "review", _at(8), {"recommendation_type": "POSITIVE"}),
        ),
        ignored=2,
    ),
    unknown=Case(
        "an unknown field",
        json_body(_body(_change("teleports", **{"from": _USER}, created_time=1777888800))),
        _WHO,
        (Touchpoint("meta.teleports", "social", _AT),),
    ),
    non_ascii=Case(
        "escaped non-ASCII text",
        json.dumps(_body(_feed("comment", comment_id="c-3", message="Schöne Grüße 👋"))).encode(),
        _WHO,
        (Touchpoint("social.commented", "social", _AT, {}, {"private": {"body": "Schöne Grüße 👋"}}),),
    ),
    times=(
        Case(
            "seconds, milliseconds, the entry's time and an invalid time",
            json_body(
                _body(
                    _feed("like", created_time=1777888800),
                    _message(1, message={"mid": "m-1", "text": "hi"}),
                    {"time": 1777888802500, **_change("comments", id="c-4", **{"from": _USER}, text="hi")},
                    _feed("comment", created_time="soon", comment_id="c-5"),
                )
            ),
            _WHO,
            (
                Touchpoint("social.liked", "social", _at(0)),
                Touchpoint("social.message_received", "social", _at(1)),
                Touchpoint("social.commented", "social", "2026-05-04T10:00:02.5Z"),
                Touchpoint("social.commented", "social", "2026-05-05T12:00:00Z"),
            ),
        ),
    ),
    malformed=Case(
        "four invalid entries and a valid one",
        json_body(
            {
                "object": "page",
                "entry": [
                    {"changes": [{"field": "feed", "value": {}}]},
                    {"id": "1111"},
                    {"id": "1111", "messaging": [{"message": {"mid": "m"}}]},
                    {"id": "1111", "time": 1777888800, **_feed("like")},
                    7,
                ],
            }
        ),
        _WHO,
        (Touchpoint("social.liked", "social", _AT),),
        rejected=4,
    ),
    others=(
        Case(
            "events of two people on one story, and two edits of one comment, within a second",
            json_body(
                _body(
                    _change("ratings", item="reaction", reaction_type="love", reviewer_id="2222", **_STORY, verb="add"),
                    _change("ratings", item="reaction", reaction_type="wow", reviewer_id="2222", **_STORY, verb="add"),
                    _change("ratings", item="reaction", reaction_type="love", reviewer_id="3333", **_STORY, verb="add"),
                    _change("ratings", item="comment", reviewer_id="2222", **_STORY, verb="add"),
                    _feed("comment", 1, comment_id="c-1", message="one", verb="edited"),
                    _feed("comment", 1, comment_id="c-1", message="two", verb="edited"),
                )
            ),
            "meta:1111:3333",
            (Touchpoint("review.submitted", "review", _AT, {"reaction": "love", "open_graph_story_id": "s-1"}),),
            accepted=6,
        ),
        Case(
            "free text in several members",
            json_body(
                _body(
                    _feed(
                        "share", title="My illness", description="of mine", caption="why", quote="a word", share_id="9"
                    )
                )
            ),
            _WHO,
            (
                Touchpoint(
                    "meta.share",
                    "social",
                    _AT,
                    {"title": None, "description": None, "caption": None, "quote": None, "share_id": "9"},
                    {"private": {"title": "My illness", "description": "of mine", "caption": "why"}},
                ),
            ),
        ),
        Case(
            "messages of people, without those of the page and of devices",
            json_body(
                _body(
                    _message(0, message={"mid": "m-1", "text": "Hello", "attachments": [{"type": "image"}]}),
                    _message(1, message={"mid": "m-2", "text": "Hi", "is_echo": True}, sender="1111"),
                    _message(2, postback={"payload": "START", "title": "Start", "mid": "m-3"}),
                    _message(3, delivery={"mids": ["m-2"], "watermark": 1}),
                    _message(4, read={"watermark": 1}),
                    _message(5, reaction={"mid": "m-2", "action": "react", "reaction": "love", "emoji": "x"}),
                    _message(6, reaction={"mid": "m-2", "action": "unreact"}),
                    _message(7, referral={"ref": "summer", "ad_id": "7", "source": "ADS"}),
                    _message(8, message={"mid": "m-1", "is_deleted": True}) | {"id": "1111"},
                    _message(9, game_play={"game_id": "1"}),
                )
            ),
            _WHO,
            (
                Touchpoint(
                    "social.message_received",
                    "social",
                    _at(0),
                    {"message_id": "m-1", "attachments": ["image"]},
                    {"private": {"body": "Hello"}},
                ),
                Touchpoint("social.message_received", "social", _at(2), {"postback": "START"}),
                Touchpoint("meta.read", "social", _at(4)),
                Touchpoint("social.liked", "social", _at(5), {"reaction": "love", "message_id": "m-2"}),
                Touchpoint("meta.unreact", "social", _at(6)),
                Touchpoint("meta.referral", "social", _at(7), {"ref": "summer", "ad_id": "7"}),
                Touchpoint("meta.message_deleted", "social", _at(8), {"message_id": "m-1"}),
                Touchpoint("meta.game_play", "social", _at(9)),
            ),
            ignored=2,
        ),
        Case(
            "Instagram comments and messages, and changes without a person",
            json_body(
                _body(
                    _change(
                        "comments",
                        id="c-1",
                        text="nice",
                        **{"from": {"id": "2222", "username": "u"}},
                        media={"id": "m-1"},
                    ),
                    _change("mentions", media_id="m-1", comment_id="c-9"),
                    _change("story_insights", media_id="m-1", impressions=7),
                    _change(
                        "messages",
                        sender={"id": "2222"},
                        recipient={"id": "1111"},
                        timestamp="1777888801000",
                        message={"mid": "ig-1", "text": "hi"},
                    ),
                    object="instagram",
                )
            ),
            _WHO,
            (
                Touchpoint(
                    "social.commented",
                    "social",
                    _AT,
                    {"platform": "instagram", "media": {"id": "m-1"}},
                    {"private": {"body": "nice"}},
                ),
                Touchpoint("social.message_received", "social", _at(1), {"platform": "instagram"}),
            ),
            ignored=2,
        ),
        Case("no entries: the whole body is quarantined", json_body({"object": "page"}), rejected=1),
    ),
)
