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

from app.connectors.adapter import Call, Connector, Erasure, Event, HandshakeReply, derive_event_id, encode_event
from app.connectors.shared.surveys import find_first_member
from app.connectors.signatures import hmac_scheme
from app.connectors.webhook_request import Unreadable, WebhookRequest, decode_json
from app.formats.event_names import vendor_event_name

_CHANNEL: Final = "social"
_LIST_SUFFIX: Final = "_events"
_IMPERSONAL_LISTS: Final = ("user_event", "direct_message_indicate_typing_events")
_BRAND_ACTIONS: Final = ("block", "unblock", "mute", "unmute")
"""What the brand does to somebody."""
_TIME_FORMAT: Final = "%a %b %d %H:%M:%S %z %Y"
_TOKEN: Final = re.compile(r"[A-Za-z0-9_+/=.-]{1,1000}")
"""What X sends is base64; no JSON object is, but a number may look like it."""


def handshake(delivery: WebhookRequest, secrets: Sequence[str]) -> HandshakeReply | None:
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


def split_delivery(delivery: WebhookRequest) -> list[Event]:
    """Each event by itself, with the account that it is of and the name of the list that it stood in."""
    body = decode_json(delivery.body)
    brand = body.get("for_user_id") if isinstance(body, dict) else None
    if not isinstance(body, dict):
        raise Unreadable("the body must be an object")
    events: list[Event] = []
    for list_name, items in body.items():
        if list_name in _IMPERSONAL_LISTS or not list_name.endswith(_LIST_SUFFIX):
            continue
        if not isinstance(items, list):
            raise Unreadable(f"{list_name} must be a list")
        users = body.get("users") if list_name.startswith("direct_message") else None
        events += [{"for_user_id": brand, "list": list_name, "event": item, "users": users} for item in items]
    if not events and not any(name in body for name in _IMPERSONAL_LISTS):
        raise Unreadable("the body has no list of events")
    return events


def map_event(event: Event, received_at: int) -> Iterable[Call | Erasure]:
    del received_at
    brand, kind, x_event = event.get("for_user_id"), event.get("list"), event.get("event")
    if not isinstance(brand, str | int) or not isinstance(kind, str) or not isinstance(x_event, dict):
        raise Unreadable("an event needs for_user_id, and must be an object")
    kind = kind.removesuffix(_LIST_SUFFIX)
    if kind == "direct_message":
        return _map_message(str(brand), x_event, event.get("users"))
    if kind == "tweet_create":
        return _map_post(str(brand), x_event)
    return _map_other(str(brand), kind, x_event)


def _map_post(brand: str, post: dict[str, Any]) -> Iterable[Call]:
    author = post.get("user")
    id = find_first_member(post, "id_str", "id")
    if find_first_member(author, "id_str", "id") is None or id is None:
        raise Unreadable("a post needs its id and its user")
    kind, original = _post_kind(post)
    yield from _map_unless_brand(
        brand,
        author,
        id=str(id),
        occurred_at=_find_time(post),
        event=vendor_event_name("x", kind) if kind == "retweet" else "social.mentioned",
        properties={
            "post_id": str(id),
            "kind": kind,
            "in_reply_to": post.get("in_reply_to_status_id_str"),
            "original_post_id": find_first_member(original, "id_str", "id"),
            "lang": post.get("lang"),
        },
        # What is repeated in a retweet is not its author's text.
        text={
            "body": None
            if kind == "retweet"
            else find_first_member(post.get("extended_tweet"), "full_text") or post.get("text")
        },
    )


def _post_kind(post: dict[str, Any]) -> tuple[str, Any]:
    for kind, member in (("retweet", "retweeted_status"), ("quote", "quoted_status")):
        if isinstance(post.get(member), dict):
            return kind, post[member]
    return ("reply" if post.get("in_reply_to_status_id_str") else "mention"), None


def _map_message(brand: str, message: dict[str, Any], users: Any) -> Iterable[Call]:
    content = message.get("message_create")
    sender, id, data = (
        find_first_member(content, "sender_id"),
        find_first_member(message, "id"),
        find_first_member(content, "message_data"),
    )
    if sender is None or id is None or not isinstance(data, dict):
        raise Unreadable("a message needs its id, and message_create with sender_id and message_data")
    yield from _map_unless_brand(
        brand,
        {"id": sender, "screen_name": find_first_member(find_first_member(users, str(sender)), "screen_name")},
        id=str(id),
        occurred_at=_find_time(message),
        event="social.message_received",
        properties={
            "message_id": str(id),
            "attachment": find_first_member(data.get("attachment"), "type"),
            "quick_reply": find_first_member(data.get("quick_reply_response"), "metadata"),
        },
        text={"body": data.get("text")},
    )


def _map_other(brand: str, kind: str, x_event: dict[str, Any]) -> Iterable[Call]:
    """Likes and follows, blocks and mutes, and whatever else there will be."""
    type = str(x_event.get("type") or kind)
    source, target = _as_user(x_event.get("source")), _as_user(x_event.get("target"))
    person = (
        x_event.get("user")
        or source
        or {"id": find_first_member(x_event, "sender_id") or find_first_member(x_event.get("status"), "user_id")}
    )
    if type in _BRAND_ACTIONS and find_first_member(person, "id_str", "id") == brand:
        person = target
    status = x_event.get("favorited_status") or x_event.get("status")
    name = {"favorite": "social.liked", "follow": "social.followed"}.get(type) or vendor_event_name("x", type)
    own_id = find_first_member(x_event, "id_str", "id")
    yield from _map_unless_brand(
        brand,
        person,
        id=f"{kind}:{own_id}" if own_id is not None else derive_event_id(brand, kind, x_event),
        occurred_at=_find_time(x_event),
        event=name,
        properties={
            "post_id": find_first_member(status, "id_str", "id"),
            "last_read": x_event.get("last_read_event_id"),
        },
    )


def _map_unless_brand(brand: str, person: Any, **call: Any) -> Iterable[Call]:
    """The call, unless it is the brand's own doing."""
    id = find_first_member(person, "id_str", "id")
    if id is None:
        raise Unreadable("an event needs the user whose it is")
    if str(id) == brand:
        return
    call["properties"] = {**call["properties"], "screen_name": find_first_member(person, "screen_name")}
    yield Call(channel=_CHANNEL, ids={"x": str(id)}, **call)


def _as_user(value: Any) -> dict[str, Any] | None:
    """A user is an object, in old bodies just an id."""
    return {"id": value} if isinstance(value, str | int) else value if isinstance(value, dict) else None


def _find_time(x_event: dict[str, Any]) -> Any:
    """``timestamp_ms`` where there is one; else the time as X writes it: ``Mon May 04 10:00:00 +0000 2026``."""
    stamp = find_first_member(x_event, "timestamp_ms", "created_timestamp", "created_at")
    if isinstance(stamp, str):
        try:
            return datetime.strptime(stamp, _TIME_FORMAT).isoformat()
        except ValueError:
            pass  # an epoch number, or a time as everybody writes it
    return stamp


_SCHEME: Final = hmac_scheme(
    "Consumer secret (API key secret) of the app",
    signature_header="x-twitter-webhooks-signature",
    encoding="base64",
    prefix="sha256=",
)

CONNECTOR: Final = Connector(
    key="x",
    name="X (Twitter)",
    family="social",
    scheme=_SCHEME,
    map_event=map_event,
    split_delivery=split_delivery,
    handshake=handshake,
    steps=(
        "In X's developer portal find the app's API key secret, and enter it as the secret of this source first: "
        "X tries the address at once.",
        "Register the webhook {url} with the Account Activity API.",
        "Subscribe the brand's account to it. Mentions, replies, likes, follows and direct messages then arrive.",
    ),
    timeout_seconds=3.0,
    sample=b'{"for_user_id":"100","tweet_create_events":[{"id_str":"900","created_at":"Mon May 04 10:00:00 +0000 2026",'
    b'"timestamp_ms":"1777888800000","text":"@brand where is my parcel?","lang":"en","user":{"id_str":"200",'
    b'"screen_name":"someone"}}]}',
)
