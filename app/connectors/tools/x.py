"""X (Twitter) connector: mentions, replies, likes, follows and messages from the Account Activity API.

A request contains lists of events of the subscribed account ``for_user_id``, the brand. The brand's own activity is
ignored, except for blocking and muting a user. Requests carry an HMAC-SHA256 of the body; X checks the URL regularly
with a challenge (CRC). X is replacing this API with the X Activity API, which this connector does not read.

Source: https://docs.x.com/x-api/account-activity/introduction and
https://developer.x.com/en/docs/x-api/enterprise/account-activity-api/guides/securing-webhooks
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
"""Actions of the brand towards another user, which are mapped although the brand is the actor."""
_TIME_FORMAT: Final = "%a %b %d %H:%M:%S %z %Y"
_TOKEN: Final = re.compile(r"[A-Za-z0-9_+/=.-]{1,1000}")
"""Pattern of X's challenge token (base64). It never matches a JSON object, but it can match a JSON number."""


def handshake(delivery: WebhookRequest, secrets: Sequence[str]) -> HandshakeReply | None:
    """Sign the challenge token that X sends when the webhook is registered and regularly afterwards.

    X signs events with the same secret in the same way. A token that is valid JSON is therefore refused: otherwise
    anyone who knows the URL could obtain the signature of a forged event.
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
    """Return each event with the account and the name of its list."""
    body = decode_json(delivery.body)
    brand = body.get("for_user_id") if isinstance(body, dict) else None
    if not isinstance(body, dict):
        raise Unreadable("the body must be a JSON object")
    events: list[Event] = []
    for list_name, items in body.items():
        if list_name in _IMPERSONAL_LISTS or not list_name.endswith(_LIST_SUFFIX):
            continue
        if not isinstance(items, list):
            raise Unreadable(f"`{list_name}` must be a list")
        users = body.get("users") if list_name.startswith("direct_message") else None
        events += [{"for_user_id": brand, "list": list_name, "event": item, "users": users} for item in items]
    if not events and not any(name in body for name in _IMPERSONAL_LISTS):
        raise Unreadable("the body has no list of events")
    return events


def map_event(event: Event, received_at: int) -> Iterable[Call | Erasure]:
    del received_at
    brand, kind, x_event = event.get("for_user_id"), event.get("list"), event.get("event")
    if not isinstance(brand, str | int) or not isinstance(kind, str) or not isinstance(x_event, dict):
        raise Unreadable("an event must be an object, and the body needs the field `for_user_id`")
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
        raise Unreadable("a post needs the fields `id` and `user`")
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
        # The text of a retweet was not written by its author.
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
        raise Unreadable(
            "a message needs `id` and `message_create`, and `message_create` needs `sender_id` and `message_data`"
        )
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
    """Map likes, follows, blocks, mutes and unknown events."""
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
    """Yield the call, except if the person is the brand itself."""
    id = find_first_member(person, "id_str", "id")
    if id is None:
        raise Unreadable("an event needs the user who caused it")
    if str(id) == brand:
        return
    call["properties"] = {**call["properties"], "screen_name": find_first_member(person, "screen_name")}
    yield Call(channel=_CHANNEL, ids={"x": str(id)}, **call)


def _as_user(value: Any) -> dict[str, Any] | None:
    """Return a user as an object; old payloads contain the id only."""
    return {"id": value} if isinstance(value, str | int) else value if isinstance(value, dict) else None


def _find_time(x_event: dict[str, Any]) -> Any:
    """Return ``timestamp_ms``, else the time in X's own format, ``Mon May 04 10:00:00 +0000 2026``, in ISO 8601."""
    stamp = find_first_member(x_event, "timestamp_ms", "created_timestamp", "created_at")
    if isinstance(stamp, str):
        try:
            return datetime.strptime(stamp, _TIME_FORMAT).isoformat()
        except ValueError:
            pass  # The time is an epoch number or ISO 8601.
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
        "In X's developer portal find the app's API key secret, and enter it as the secret of this source before the "
        "next step: X tests the URL when it is registered.",
        "Register the webhook {url} with the Account Activity API.",
        "Subscribe the brand's account to the webhook. X then sends mentions, replies, likes, follows and direct "
        "messages.",
    ),
    timeout_seconds=3.0,
    sample=b'{"for_user_id":"100","tweet_create_events":[{"id_str":"900","created_at":"Mon May 04 10:00:00 +0000 2026",'
    b'"timestamp_ms":"1777888800000","text":"@brand where is my parcel?","lang":"en","user":{"id_str":"200",'
    b'"screen_name":"someone"}}]}',
)
