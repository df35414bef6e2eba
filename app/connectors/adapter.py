"""Building blocks of a connector: :class:`Connector`, :class:`Call`, :class:`Erasure`, :class:`HandshakeReply`.

Each module in :mod:`app.connectors.tools` adapts one vendor tool. Segue verifies the raw bytes of a
:class:`WebhookRequest`, *splits* the body into events and *maps* each event to Segment-style calls, which are then
ingested like every other message. An event is a self-contained JSON object: ``split_delivery`` copies the headers that
it needs into it, because an event that cannot be stored is quarantined and later replayed without its request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final, Literal, assert_never, get_args

import msgspec

from app.connectors.signatures import Scheme
from app.connectors.webhook_request import Unreadable, WebhookRequest, decode_json
from app.enrichment.sentiment import estimate_sentiment

Event = dict[str, Any]
"""One event of a tool as decoded JSON; numbers with a fraction are Decimal."""

ID_CHARS_MAX: Final = 255
TEXT_CHARS_MAX: Final = 4_000
"""Maximum length of one free text in characters; longer texts are truncated so that the message fits its limit."""

TextPolicy = Literal["private", "property", "none"]
TEXT_POLICIES: Final[tuple[TextPolicy, ...]] = get_args(TextPolicy)
"""Destinations of free text: ``context.private``, which rules cannot read, ``properties.text``, or discarded."""

_ABSENT: Final[tuple[Any, ...]] = (None, "", {}, [])

_ENCODER = msgspec.json.Encoder(decimal_format="number")


class Call(msgspec.Struct, kw_only=True):
    """One Segment-style call: track if it has an ``event``, alias if it has a ``previous_id``, otherwise identify.

    Values are those that the tool sent; None and empty values are dropped. Ingestion validates the identities as it
    does for every message: it drops junk and normalises email addresses and phone numbers.
    """

    id: str
    """Message id, which is the same on every retry: the tool's event id, else the result of :func:`derive_event_id`."""
    occurred_at: Any = None
    """Event time, as text or a number that :mod:`app.formats.timestamps` parses; None means the time of arrival."""
    event: str | None = None
    channel: str = ""
    user_id: Any = None
    anonymous_id: Any = None
    email: Any = None
    phone: Any = None
    ids: Mapping[str, Any] = {}
    """Vendor ids by identity kind, such as ``{"zendesk_user": 123}``. The value is a list if a person has several.

    A kind in ``app.identity.object_owners.OBJECT_KINDS`` is not an identity but an object of the person.
    """
    previous_id: Any = None
    """The former user id of ``user_id``, for an alias call."""
    traits: Mapping[str, Any] = {}
    """Traits of an identify call; a null removes the trait."""
    properties: Mapping[str, Any] = {}
    """Event properties. They must be equal on every retry, so they must not contain attempt counts or sending times."""
    context: Mapping[str, Any] = {}
    text: Mapping[str, Any] = {}
    """Text that people wrote, by name: ``{"subject": .., "body": ..}``."""
    is_by_customer: bool = True
    """False if an agent wrote the text, because sentiment is estimated only for text of the customer."""


class Erasure(msgspec.Struct):
    """A customer's request for erasure, as reported by the tool. It is queued for the identity that the tool sent."""

    kind: str
    value: Any


class HandshakeReply(msgspec.Struct, kw_only=True):
    """The response to a handshake. Segue sends a GET request to ``fetch_url``, if set, before it responds."""

    status: int = 200
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = {}
    fetch_url: str = ""


def _return_none(*_: Any) -> None:
    return None


def split_json_events(delivery: WebhookRequest) -> list[Event]:
    """Return the events of a JSON body: an object is one event, an array is several. Raise Unreadable otherwise."""
    value = decode_json(delivery.body)
    if isinstance(value, dict):
        return [value]
    if isinstance(value, list):
        return value
    raise Unreadable("the body must be a JSON object or array")


@dataclass(frozen=True, kw_only=True, slots=True)
class Connector:
    """One kind of source. To add one, add a module with a ``CONNECTOR`` to :mod:`app.connectors.tools`."""

    key: str
    name: str
    family: str
    """Group in lists of connectors: email, support, survey, social, analytics, shop or any."""
    scheme: Scheme
    map_event: Callable[[Event, int], Iterable[Call | Erasure]]
    """Function of ``(event, received_at)`` that returns the calls for one event. Raises Unreadable.

    It returns an empty iterable for an event that does not concern a person.
    """
    sample: bytes
    """A request body from the vendor's documentation. The tests and the trial run of a source send it."""
    sample_headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": "application/json"})
    split_delivery: Callable[[WebhookRequest], list[Event]] = split_json_events
    """Function that returns the self-contained events of one request. Raises Unreadable."""
    steps: tuple[str, ...] = ()
    """Set-up instructions for the operator; ``{url}`` is the URL of the source's webhook."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Options of a source of this kind, each with its description."""
    handshake: Callable[[WebhookRequest, Sequence[str]], HandshakeReply | None] = _return_none
    """Function of ``(request, secrets)``, called first for every HTTP method. Returns None if it is not a handshake."""
    handshake_signed: Callable[[WebhookRequest], HandshakeReply | None] = _return_none
    """A second handshake function, called only after the signature is verified."""
    certificate_url: Callable[[WebhookRequest], str | None] = _return_none
    """Function that returns the URL of the signing certificate. Raises SignatureRefused for a foreign host."""
    single_use_token: Callable[[WebhookRequest], str | None] = _return_none
    """Function that returns a token which is valid for one body only; for signatures that do not cover the body."""
    timeout_seconds: float = 10.0
    """Time in seconds after which the tool abandons the request."""
    refused_status: int = 400
    """HTTP status of the response to an invalid body. It is the status that stops this tool from retrying."""


def encode_event(event: Any) -> bytes:
    """Encode an event as JSON for the quarantine, from which it can be replayed."""
    return _ENCODER.encode(event)


def derive_event_id(*parts: Any) -> str:
    """Return a message id for an event without one: a hash of the values that distinguish it from all other events."""
    return "hash-" + blake2b(_ENCODER.encode(parts), digest_size=16).hexdigest()


def text_policy_of(options: Mapping[str, str]) -> TextPolicy:
    """Return the source's option ``text``; ``private`` if it is missing or unknown."""
    option = options.get("text", "private")
    return next((policy for policy in TEXT_POLICIES if policy == option), "private")


def to_segment_message(call: Call, text_policy: TextPolicy = "private", *, with_estimate: bool = False) -> bytes:
    """Encode the call as a Segment message in JSON.

    If ``with_estimate`` is True, include the estimated sentiment of the customer's text.
    """
    contact = _drop_absent({"email": call.email, "phone": call.phone})
    message: dict[str, Any] = {
        "messageId": call.id if len(call.id) <= ID_CHARS_MAX else derive_event_id(call.id),
        "timestamp": call.occurred_at,
        "userId": call.user_id,
        "anonymousId": call.anonymous_id,
    }
    context = dict(call.context)
    properties = dict(call.properties)
    if call.channel:
        context["channel"] = call.channel
    if ids := _drop_absent(call.ids):
        context["externalIds"] = [
            {"id": external_id, "type": kind} for kind, value in ids.items() for external_id in _as_list(value)
        ]
    text = {name: _truncate_text(value) for name, value in _drop_absent(call.text).items()}
    if with_estimate and call.is_by_customer and (sentiment := estimate_sentiment("\n".join(map(str, text.values())))):
        properties["estimate"] = sentiment
    if text:
        match text_policy:
            case "private":
                context["private"] = text
            case "property":
                properties["text"] = text
            case "none":
                pass
            case _:
                assert_never(text_policy)
    if call.event is not None:
        message |= {"type": "track", "event": call.event, "properties": _drop_absent(properties)}
        if contact:
            context["traits"] = contact
    elif call.previous_id is not None:
        message |= {"type": "alias", "previousId": call.previous_id}
    else:
        message |= {"type": "identify", "traits": {**call.traits, **contact}}
    message["context"] = context
    return _ENCODER.encode(_drop_absent(message))


def _drop_absent(members: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value not in _ABSENT}


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _truncate_text(value: Any) -> Any:
    return value[:TEXT_CHARS_MAX] if isinstance(value, str) else value
