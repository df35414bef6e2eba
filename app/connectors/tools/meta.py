"""Meta connector: comments, reactions, mentions, reviews and messages of a Facebook Page or an Instagram account.

A request contains entries, each with changes or messages; each of these is one event. Meta's user ids are valid for one
page only, so the identity is ``meta:<page>:<user>``. Activity of the page itself is ignored. Requests carry an
HMAC-SHA256 of the body (``X-Hub-Signature-256``); HMAC-SHA1 is accepted only if the newer signature is missing.

Source: https://developers.facebook.com/docs/graph-api/webhooks/getting-started
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from app.connectors.adapter import Call, Connector, Erasure, Event, HandshakeReply, derive_event_id
from app.connectors.shared.surveys import REVIEW, find_first_member, list_objects
from app.connectors.signatures import Scheme, hmac_scheme, is_same_secret
from app.connectors.webhook_request import Unreadable, WebhookRequest, decode_json
from app.formats.event_names import vendor_event_name

_CHANNEL: Final = "social"
_CHANGE: Final = "change"
_MESSAGE: Final = "message"

_SHA256: Final = hmac_scheme("App secret", signature_header="x-hub-signature-256", prefix="sha256=")
_SHA1: Final = hmac_scheme("App secret", signature_header="x-hub-signature", digest="sha1", prefix="sha1=")

_COMMENT_FIELDS: Final = ("comments", "live_comments")
_MENTION_FIELDS: Final = ("mention", "mentions")
_LIKE_ITEMS: Final = ("reaction", "like")
_MESSAGE_FIELDS: Final = (
    "messages",
    "messaging_postbacks",
    "messaging_referral",
    "messaging_seen",
    "message_reactions",
)
_TEXT_NAMES: Final = ("message", "text", "review_text")
_OTHER_TEXT_NAMES: Final = ("title", "description", "caption")
_EDIT_VERBS: Final = ("edit", "edited")
_COPIED_NAMES: Final = (
    "item",
    "verb",
    "id",
    "comment_id",
    "post_id",
    "parent_id",
    "media_id",
    "photo_id",
    "video_id",
    "share_id",
    "album_id",
    "event_id",
    "open_graph_story_id",
    "recommendation_type",
    "rating",
    "has_rating",
    "has_review",
    "is_hidden",
)
"""Fields of a change that contain ids or fixed words. Other fields may contain free text, such as a title."""
_COPIED_MEDIA_NAMES: Final = ("id", "media_product_type")
_DEVICE_KINDS: Final = ("delivery",)
"""Kinds of messages that the customer's device sends automatically; they are ignored."""
_MESSAGE_KINDS: Final = ("message", "postback", "reaction", "read", "delivery", "referral", "optin", "account_linking")


def verify(delivery: WebhookRequest, secret: str) -> None:
    """Verify the SHA-256 signature, or the older SHA-1 signature if the former is missing."""
    has_only_sha1 = "x-hub-signature" in delivery.headers and "x-hub-signature-256" not in delivery.headers
    (_SHA1 if has_only_sha1 else _SHA256).verify(delivery, secret)


def handshake(delivery: WebhookRequest, secrets: Sequence[str]) -> HandshakeReply | None:
    """Return the challenge of the verification request if its token equals the source's ``verify_token``."""
    del secrets
    if delivery.method != "GET" or "hub.mode" not in delivery.query:
        return None
    expected, verify_token = delivery.options.get("verify_token", ""), delivery.query.get("hub.verify_token", "")
    if not expected or delivery.query["hub.mode"] != "subscribe" or not is_same_secret(verify_token, expected):
        return HandshakeReply(status=403)
    return HandshakeReply(body=delivery.query.get("hub.challenge", "").encode())


def split_delivery(delivery: WebhookRequest) -> list[Event]:
    """Return each change and each message as one event, with the page and the time of its entry."""
    body = decode_json(delivery.body)
    entries = body.get("entry") if isinstance(body, dict) else None
    if not isinstance(entries, list):
        raise Unreadable("the body needs the field `entry`, a list")
    events: list[Event] = []
    for entry in entries:
        members: dict[str, Any] = entry if isinstance(entry, dict) else {}
        shared = {"object": body.get("object"), "page": members.get("id"), "time": members.get("time")}
        parts = [(_CHANGE, change) for change in _list_member(members, "changes")]
        parts += [(_MESSAGE, message) for name in ("messaging", "standby") for message in _list_member(members, name)]
        events += [{**shared, kind: part} for kind, part in parts] or [{**shared, "entry": entry}]
    return events


def map_event(event: Event, received_at: int) -> Iterable[Call | Erasure]:
    del received_at
    page, change, message = event.get("page"), event.get(_CHANGE), event.get(_MESSAGE)
    if not isinstance(page, str | int) or not page:
        raise Unreadable("an entry needs the field `id`")
    if isinstance(change, dict) and isinstance(change.get("field"), str):
        value = change.get("value")
        if change["field"] in _MESSAGE_FIELDS and isinstance(value, dict) and "sender" in value:
            return _map_message(event, str(page), value)
        return _map_change(event, str(page), change["field"], value if isinstance(value, dict) else {})
    if isinstance(message, dict) and isinstance(message.get("sender"), dict):
        return _map_message(event, str(page), message)
    raise Unreadable("an entry needs `changes` with the field `field`, or `messaging` with the field `sender`")


def _map_change(event: Event, page: str, field: str, value: dict[str, Any]) -> Iterable[Call]:
    sender = value.get("from")
    person = find_first_member(sender, "id") or find_first_member(value, "sender_id", "reviewer_id")
    if person is None or str(person) == page:
        return
    name = _classify_change(field, value)
    own_id = find_first_member(value, "comment_id", "id", "open_graph_story_id")
    verb = value.get("verb")
    # The id of a post alone is not unique: many people may react to one post, and it may be edited within the second
    # of its creation. A change without an id is identified by its whole content.
    text = find_first_member(value, *_TEXT_NAMES)
    id_parts: tuple[Any, ...] = (value,)
    if own_id is not None:
        id_parts = (own_id, verb, value.get("created_time"), value.get("item"), str(person), value.get("reaction_type"))
        id_parts += (text,) if verb in _EDIT_VERBS else ()
    yield Call(
        id=derive_event_id(page, field, *id_parts),
        occurred_at=find_first_member(value, "created_time") or event.get("time"),
        event=name,
        channel="review" if name == REVIEW else _CHANNEL,
        ids={"meta": f"{page}:{person}"},
        properties={
            "platform": _find_platform(event),
            "page_id": page,
            "reaction": value.get("reaction_type"),
            **{key: value.get(key) for key in _COPIED_NAMES if not isinstance(value.get(key), dict | list)},
            "media": {
                key: member
                for key in _COPIED_MEDIA_NAMES
                if (member := find_first_member(value.get("media"), key)) is not None
            },
        },
        text={"body": text, **{key: member for key in _OTHER_TEXT_NAMES if isinstance(member := value.get(key), str)}},
    )


def _classify_change(field: str, value: dict[str, Any]) -> str:
    item, verb = value.get("item"), value.get("verb") or "add"
    if verb != "add":
        return vendor_event_name("meta", f"{item or field}_{verb}")
    if field in _COMMENT_FIELDS or (field == "feed" and item == "comment"):
        return "social.commented"
    if field in _MENTION_FIELDS:
        return "social.mentioned"
    if field == "feed" and item in _LIKE_ITEMS:
        return "social.liked"
    if field == "ratings":
        return REVIEW
    return vendor_event_name("meta", item if field == "feed" and item else field)


def _map_message(event: Event, page: str, message: dict[str, Any]) -> Iterable[Call]:
    person = find_first_member(message["sender"], "id") if isinstance(message.get("sender"), dict) else None
    kind = next((member_name for member_name in _MESSAGE_KINDS if isinstance(message.get(member_name), dict)), None)
    if person is None:
        raise Unreadable("a message needs the object `sender` with the field `id`")
    content: dict[str, Any] = message[kind] if kind else {}
    if str(person) == page or content.get("is_echo") is True or kind in _DEVICE_KINDS:
        return
    own_id = find_first_member(content, "mid")
    is_new = kind == "message" and content.get("is_deleted") is not True
    kinds = [attachment.get("type") for attachment in list_objects(content.get("attachments"))]
    yield Call(
        id=str(own_id) if own_id is not None and is_new else derive_event_id(page, message),
        occurred_at=find_first_member(message, "timestamp") or event.get("time"),
        event=_classify_message(kind, content, message),
        channel=_CHANNEL,
        ids={"meta": f"{page}:{person}"},
        properties={
            "platform": _find_platform(event),
            "page_id": page,
            "message_id": own_id,
            "attachments": kinds,
            "postback": content.get("payload")
            if kind == "postback"
            else find_first_member(content.get("quick_reply"), "payload"),
            "reaction": content.get("reaction"),
            "ref": find_first_member(content, "ref") or find_first_member(content.get("referral"), "ref"),
            "ad_id": find_first_member(content, "ad_id") or find_first_member(content.get("referral"), "ad_id"),
        },
        text={"body": content.get("text")},
    )


def _classify_message(kind: str | None, content: dict[str, Any], message: dict[str, Any]) -> str:
    if kind == "message" and content.get("is_deleted") is True:
        return vendor_event_name("meta", "message_deleted")
    if kind in ("message", "postback"):
        return "social.message_received"
    if kind == "reaction":
        return "social.liked" if content.get("action") != "unreact" else vendor_event_name("meta", "unreact")
    envelope_names = ("sender", "recipient", "timestamp")
    return vendor_event_name(
        "meta", kind or next((member_name for member_name in message if member_name not in envelope_names), "message")
    )


def _find_platform(event: Event) -> str:
    return "instagram" if event.get("object") == "instagram" else "facebook"


def _list_member(entry: dict[str, Any], name: str) -> list[Any]:
    value = entry.get(name)
    return value if isinstance(value, list) else []


CONNECTOR: Final = Connector(
    key="meta",
    name="Facebook and Instagram",
    family="social",
    scheme=Scheme(secret_label="App secret", verify=verify, sign=_SHA256.sign),
    map_event=map_event,
    split_delivery=split_delivery,
    handshake=handshake,
    options={"verify_token": "The Verify Token that you enter in Meta's developer portal next to the callback URL."},
    steps=(
        "Choose a Verify Token, and enter it as this source's option verify_token.",
        "In Meta's developer portal add the product Webhooks to your app, select Page (or Instagram), and subscribe "
        "with the callback URL {url} and this Verify Token.",
        "Enter the app secret (Settings, Basic) as the secret of this source.",
        "Subscribe to feed, mention, ratings, messages and messaging_postbacks; for Instagram, to comments and "
        "messages. Then subscribe the page itself to the app.",
    ),
    timeout_seconds=5.0,
    sample=b'{"object":"page","entry":[{"id":"1111","time":1777888800,"changes":[{"field":"feed","value":'
    b'{"item":"comment","verb":"add","comment_id":"1_2","post_id":"1111_1","parent_id":"1111_1",'
    b'"from":{"id":"2222","name":"User"},"message":"Is it in stock?","created_time":1777888799}}]}]}',
)
