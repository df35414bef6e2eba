"""X's account activity: mentions, replies, likes, follows and messages of the account that is subscribed. Pure.

One request holds one list of events, of the account ``for_user_id``: the brand. What the brand itself does concerns
nobody, but for whom it blocks or mutes.
"""

from __future__ import annotations

import hmac
import re
from base64 import b64encode
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final

from app.connectors.adapter import Call, Connector, Erasure, Event, HandshakeReply, encode_event, event_id
from app.connectors.delivery import Delivery, Unreadable, decode_json
from app.connectors.shared.surveys import first
from app.connectors.signatures import hmac_scheme
from app.formats.event_names import vendor_event_name

_CHANNEL: Final = "social"
_ENDING: Final = "_events"
_OF_NOBODY: Final = ("user_event", "direct_message_indicate_typing_events")
_TOUCHED: Final = ("block", "unblock", "mute", "unmute")
"""What the brand does to somebody."""
_CREATED: Final = "%a %b %d %H:%M:%S %z %Y"
_TOKEN: Final = re.compile(r"[A-Za-z0-9_+/=.-]{1,1000}")
"""What X sends is base64; no JSON object is, but a number may look like it."""


def handshake(delivery: Delivery, secrets: Sequence[str]) -> HandshakeReply | None:
    """The challenge that X repeats every hour: a token, to be signed with the consumer secret.

    Deliveries are signed with the same secret in the same way. So nothing is signed that could be a delivery's body:
    who only knows the address would have us sign what they then send.
    """
    token = delivery.query.get("crc_token", "")
    if delivery.method != "GET" or not token:
        return None
    if not secrets or not _TOKEN.fullmatch(token) or _is_json(token):
        return HandshakeReply(status=403)
    mac = b64encode(hmac.digest(secrets[0].encode(), token.encode(), "sha256")).decode()
    return HandshakeReply(body=encode_event({"response_token": f"sha256={mac}"}), content_type="application/json")


def _is_json(token: str) -> bool:
    try:
        decode_json(token.encode())
    except Unreadable:
        return False
    return True


def split(delivery: Delivery) -> list[Event]:
    """Each event by itself, with the account that it is of and the name of the list that it stood in."""
    body = decode_json(delivery.body)
    brand = body.get("for_user_id") if isinstance(body, dict) else None
    if not isinstance(body, dict):
        raise Unreadable("the body must be an object")
    events: list[Event] = []
    for list_name, items in body.items():
        if list_name in _OF_NOBODY or not list_name.endswith(_ENDING):
            continue
        if not isinstance(items, list):
            raise Unreadable(f"{list_name} must be a list")
        users = body.get("users") if list_name.startswith("direct_message") else None
        events += [{"for_user_id": brand, "list": list_name, "event": each, "users": users} for each in items]
    if not events and not any(name in body for name in _OF_NOBODY):
        raise Unreadable("the body has no list of events")
    return events


def read(event: Event, received_at: int) -> Iterable[Call | Erasure]:
    del received_at
    brand, kind, said = event.get("for_user_id"), event.get("list"), event.get("event")
    if not isinstance(brand, str | int) or not isinstance(kind, str) or not isinstance(said, dict):
        raise Unreadable("an event needs for_user_id, and must be an object")
    kind = kind.removesuffix(_ENDING)
    if kind == "direct_message":
        return _message(str(brand), said, event.get("users"))
    if kind == "tweet_create":
        return _post(str(brand), said)
    return _other(str(brand), kind, said)


def _post(brand: str, post: dict[str, Any]) -> Iterable[Call]:
    author = post.get("user")
    id = first(post, "id_str", "id")
    if first(author, "id_str", "id") is None or id is None:
        raise Unreadable("a post needs its id and its user")
    kind, original = _kind_of(post)
    yield from _of_person(
        brand,
        author,
        id=str(id),
        at=_at(post),
        event=vendor_event_name("x", kind) if kind == "retweet" else "social.mentioned",
        properties={
            "post_id": str(id),
            "kind": kind,
            "in_reply_to": post.get("in_reply_to_status_id_str"),
            "original_post_id": first(original, "id_str", "id"),
            "lang": post.get("lang"),
        },
        # What is repeated in a retweet is not its author's text.
        text={
            "body": None if kind == "retweet" else first(post.get("extended_tweet"), "full_text") or post.get("text")
        },
    )


def _kind_of(post: dict[str, Any]) -> tuple[str, Any]:
    for kind, member in (("retweet", "retweeted_status"), ("quote", "quoted_status")):
        if isinstance(post.get(member), dict):
            return kind, post[member]
    return ("reply" if post.get("in_reply_to_status_id_str") else "mention"), None


def _message(brand: str, said: dict[str, Any], users: Any) -> Iterable[Call]:
    content = said.get("message_create")
    sender, id, data = first(content, "sender_id"), first(said, "id"), first(content, "message_data")
    if sender is None or id is None or not isinstance(data, dict):
        raise Unreadable("a message needs its id, and message_create with sender_id and message_data")
    yield from _of_person(
        brand,
        {"id": sender, "screen_name": first(first(users, str(sender)), "screen_name")},
        id=str(id),
        at=_at(said),
        event="social.message_received",
        properties={
            "message_id": str(id),
            "attachment": first(data.get("attachment"), "type"),
            "quick_reply": first(data.get("quick_reply_response"), "metadata"),
        },
        text={"body": data.get("text")},
    )


def _other(brand: str, kind: str, said: dict[str, Any]) -> Iterable[Call]:
    """Likes and follows, blocks and mutes, and whatever else there will be."""
    type = str(said.get("type") or kind)
    source, target = _user(said.get("source")), _user(said.get("target"))
    person = said.get("user") or source or {"id": first(said, "sender_id") or first(said.get("status"), "user_id")}
    if type in _TOUCHED and first(person, "id_str", "id") == brand:
        person = target
    status = said.get("favorited_status") or said.get("status")
    name = {"favorite": "social.liked", "follow": "social.followed"}.get(type) or vendor_event_name("x", type)
    own = first(said, "id_str", "id")
    yield from _of_person(
        brand,
        person,
        id=f"{kind}:{own}" if own is not None else event_id(brand, kind, said),
        at=_at(said),
        event=name,
        properties={"post_id": first(status, "id_str", "id"), "last_read": said.get("last_read_event_id")},
    )


def _of_person(brand: str, person: Any, **call: Any) -> Iterable[Call]:
    """The call, unless it is the brand's own doing."""
    id = first(person, "id_str", "id")
    if id is None:
        raise Unreadable("an event needs the user whose it is")
    if str(id) == brand:
        return
    call["properties"] = {**call["properties"], "screen_name": first(person, "screen_name")}
    yield Call(channel=_CHANNEL, ids={"x": str(id)}, **call)


def _user(value: Any) -> dict[str, Any] | None:
    """A user is an object, in old bodies just an id."""
    return {"id": value} if isinstance(value, str | int) else value if isinstance(value, dict) else None


def _at(said: dict[str, Any]) -> Any:
    """``timestamp_ms`` where there is one; else the time as X writes it: ``Mon May 04 10:00:00 +0000 2026``."""
    stamp = first(said, "timestamp_ms", "created_timestamp", "created_at")
    if isinstance(stamp, str):
        try:
            return datetime.strptime(stamp, _CREATED).isoformat()
        except ValueError:
            pass  # an epoch number, or a time as everybody writes it
    return stamp


_SCHEME: Final = hmac_scheme(
    "Consumer secret (API key secret) of the app",
    name="x-twitter-webhooks-signature",
    encoding="base64",
    prefix="sha256=",
)

CONNECTOR: Final = Connector(
    key="x",
    name="X (Twitter)",
    family="social",
    scheme=_SCHEME,
    read=read,
    split=split,
    handshake=handshake,
    steps=(
        "In X's developer portal find the app's API key secret, and enter it as the secret of this source first: "
        "X tries the address at once.",
        "Register the webhook {url} with the Account Activity API.",
        "Subscribe the brand's account to it. Mentions, replies, likes, follows and direct messages then arrive.",
    ),
    seconds=3.0,
    sample=b'{"for_user_id":"100","tweet_create_events":[{"id_str":"900","created_at":"Mon May 04 10:00:00 +0000 2026",'
    b'"timestamp_ms":"1777888800000","text":"@brand where is my parcel?","lang":"en","user":{"id_str":"200",'
    b'"screen_name":"someone"}}]}',
)
