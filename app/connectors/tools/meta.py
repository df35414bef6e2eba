"""Meta's webhooks: comments, reactions, mentions, reviews and messages of a Page or an Instagram account. Pure.

One request holds many entries, an entry many changes: each is an event here. A person is known by an id that holds for
one page only, so the identity is ``meta:<page>:<user>``. What the page itself writes concerns no person.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from app.connectors.adapter import Call, Connector, Erasure, Event, HandshakeReply, event_id
from app.connectors.delivery import Delivery, Unreadable, decode_json
from app.connectors.shared.surveys import REVIEW, first, objects
from app.connectors.signatures import Scheme, hmac_scheme, is_same_secret
from app.formats.event_names import vendor_event_name

_CHANNEL: Final = "social"
_CHANGE: Final = "change"
_MESSAGE: Final = "message"

_SHA256: Final = hmac_scheme("App secret", name="x-hub-signature-256", prefix="sha256=")
_SHA1: Final = hmac_scheme("App secret", name="x-hub-signature", digest="sha1", prefix="sha1=")

_COMMENTS: Final = ("comments", "live_comments")
_MENTIONS: Final = ("mention", "mentions")
_LIKES: Final = ("reaction", "like")
_MESSAGES: Final = ("messages", "messaging_postbacks", "messaging_referral", "messaging_seen", "message_reactions")
_TEXTS: Final = ("message", "text", "review_text")
_WRITTEN: Final = ("title", "description", "caption")
_EDITED: Final = ("edit", "edited")
_KEPT: Final = (
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
"""Members of a change that are ids and words of lists. Any other may be what somebody wrote: a title, a caption."""
_MEDIA_KEPT: Final = ("id", "media_product_type")
_SILENT: Final = ("delivery",)
"""What a person's device says by itself."""
_OF_MESSAGES: Final = ("message", "postback", "reaction", "read", "delivery", "referral", "optin", "account_linking")


def verify(delivery: Delivery, secret: str) -> None:
    """By the signature of today, or by the older one where it comes alone."""
    only_old = "x-hub-signature" in delivery.headers and "x-hub-signature-256" not in delivery.headers
    (_SHA1 if only_old else _SHA256).verify(delivery, secret)


def handshake(delivery: Delivery, secrets: Sequence[str]) -> HandshakeReply | None:
    """Whoever sets the webhook up shows the word that both know; the challenge is given back."""
    del secrets
    if delivery.method != "GET" or "hub.mode" not in delivery.query:
        return None
    expected, said = delivery.options.get("verify_token", ""), delivery.query.get("hub.verify_token", "")
    if not expected or delivery.query["hub.mode"] != "subscribe" or not is_same_secret(said, expected):
        return HandshakeReply(status=403)
    return HandshakeReply(body=delivery.query.get("hub.challenge", "").encode())


def split(delivery: Delivery) -> list[Event]:
    """Each change and each message by itself, with the page and the time of its entry."""
    body = decode_json(delivery.body)
    entries = body.get("entry") if isinstance(body, dict) else None
    if not isinstance(entries, list):
        raise Unreadable("the body needs the list entry")
    events: list[Event] = []
    for entry in entries:
        of: dict[str, Any] = entry if isinstance(entry, dict) else {}
        shared = {"object": body.get("object"), "page": of.get("id"), "time": of.get("time")}
        parts = [(_CHANGE, each) for each in _list(of, "changes")]
        parts += [(_MESSAGE, each) for name in ("messaging", "standby") for each in _list(of, name)]
        events += [{**shared, kind: each} for kind, each in parts] or [{**shared, "entry": entry}]
    return events


def read(event: Event, received_at: int) -> Iterable[Call | Erasure]:
    del received_at
    page, change, message = event.get("page"), event.get(_CHANGE), event.get(_MESSAGE)
    if not isinstance(page, str | int) or not page:
        raise Unreadable("an entry needs its id")
    if isinstance(change, dict) and isinstance(change.get("field"), str):
        value = change.get("value")
        if change["field"] in _MESSAGES and isinstance(value, dict) and "sender" in value:
            return _read_message(event, str(page), value)
        return _read_change(event, str(page), change["field"], value if isinstance(value, dict) else {})
    if isinstance(message, dict) and isinstance(message.get("sender"), dict):
        return _read_message(event, str(page), message)
    raise Unreadable("an entry needs changes with a field, or messaging with a sender")


def _read_change(event: Event, page: str, field: str, value: dict[str, Any]) -> Iterable[Call]:
    sender = value.get("from")
    person = first(sender, "id") or first(value, "sender_id", "reviewer_id")
    if person is None or str(person) == page:
        return
    name = _name_of_change(field, value)
    own = first(value, "comment_id", "id", "open_graph_story_id")
    verb = value.get("verb")
    # A thing may have many reactions of many people, and be edited within a second of its making; whatever has no id of
    # its own is told by all that it says.
    said = first(value, *_TEXTS)
    told: tuple[Any, ...] = (value,)
    if own is not None:
        told = (own, verb, value.get("created_time"), value.get("item"), str(person), value.get("reaction_type"))
        told += (said,) if verb in _EDITED else ()
    yield Call(
        id=event_id(page, field, *told),
        at=first(value, "created_time") or event.get("time"),
        event=name,
        channel="review" if name == REVIEW else _CHANNEL,
        ids={"meta": f"{page}:{person}"},
        properties={
            "platform": _platform(event),
            "page_id": page,
            "reaction": value.get("reaction_type"),
            **{key: value.get(key) for key in _KEPT if not isinstance(value.get(key), dict | list)},
            "media": {key: each for key in _MEDIA_KEPT if (each := first(value.get("media"), key)) is not None},
        },
        text={"body": said, **{key: each for key in _WRITTEN if isinstance(each := value.get(key), str)}},
    )


def _name_of_change(field: str, value: dict[str, Any]) -> str:
    item, verb = value.get("item"), value.get("verb") or "add"
    if verb != "add":
        return vendor_event_name("meta", f"{item or field}_{verb}")
    if field in _COMMENTS or (field == "feed" and item == "comment"):
        return "social.commented"
    if field in _MENTIONS:
        return "social.mentioned"
    if field == "feed" and item in _LIKES:
        return "social.liked"
    if field == "ratings":
        return REVIEW
    return vendor_event_name("meta", item if field == "feed" and item else field)


def _read_message(event: Event, page: str, said: dict[str, Any]) -> Iterable[Call]:
    person = first(said["sender"], "id") if isinstance(said.get("sender"), dict) else None
    kind = next((each for each in _OF_MESSAGES if isinstance(said.get(each), dict)), None)
    if person is None:
        raise Unreadable("a message needs sender with its id")
    content: dict[str, Any] = said[kind] if kind else {}
    if str(person) == page or content.get("is_echo") is True or kind in _SILENT:
        return
    own = first(content, "mid")
    is_new = kind == "message" and content.get("is_deleted") is not True
    kinds = [each.get("type") for each in objects(content.get("attachments"))]
    yield Call(
        id=str(own) if own is not None and is_new else event_id(page, said),
        at=first(said, "timestamp") or event.get("time"),
        event=_name_of_message(kind, content, said),
        channel=_CHANNEL,
        ids={"meta": f"{page}:{person}"},
        properties={
            "platform": _platform(event),
            "page_id": page,
            "message_id": own,
            "attachments": kinds,
            "postback": content.get("payload") if kind == "postback" else first(content.get("quick_reply"), "payload"),
            "reaction": content.get("reaction"),
            "ref": first(content, "ref") or first(content.get("referral"), "ref"),
            "ad_id": first(content, "ad_id") or first(content.get("referral"), "ad_id"),
        },
        text={"body": content.get("text")},
    )


def _name_of_message(kind: str | None, content: dict[str, Any], said: dict[str, Any]) -> str:
    if kind == "message" and content.get("is_deleted") is True:
        return vendor_event_name("meta", "message_deleted")
    if kind in ("message", "postback"):
        return "social.message_received"
    if kind == "reaction":
        return "social.liked" if content.get("action") != "unreact" else vendor_event_name("meta", "unreact")
    known = ("sender", "recipient", "timestamp")
    return vendor_event_name("meta", kind or next((each for each in said if each not in known), "message"))


def _platform(event: Event) -> str:
    return "instagram" if event.get("object") == "instagram" else "facebook"


def _list(entry: dict[str, Any], name: str) -> list[Any]:
    value = entry.get(name)
    return value if isinstance(value, list) else []


CONNECTOR: Final = Connector(
    key="meta",
    name="Facebook and Instagram",
    family="social",
    scheme=Scheme(secret="App secret", verify=verify, sign=_SHA256.sign),
    read=read,
    split=split,
    handshake=handshake,
    options={"verify_token": "The word that you enter as Verify Token beside the address."},
    steps=(
        "In Meta's developer portal add the product Webhooks to your app, choose Page (or Instagram), and subscribe "
        "with the address {url} and a Verify Token of your choice, which is this source's option verify_token.",
        "Enter the app secret (Settings, Basic) as the secret of this source.",
        "Subscribe to feed, mention, ratings, messages and messaging_postbacks; of Instagram to comments and messages. "
        "Then subscribe the page itself to the app.",
    ),
    seconds=5.0,
    sample=b'{"object":"page","entry":[{"id":"1111","time":1777888800,"changes":[{"field":"feed","value":'
    b'{"item":"comment","verb":"add","comment_id":"1_2","post_id":"1111_1","parent_id":"1111_1",'
    b'"from":{"id":"2222","name":"User"},"message":"Is it in stock?","created_time":1777888799}}]}]}',
)
