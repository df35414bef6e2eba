"""What an adapter is made of: one module in :mod:`app.connectors.tools` for each tool that sends webhooks. Pure.

A request of a tool is a :class:`WebhookRequest`. It is verified as raw bytes, *split* into events, and each event is
*mapped* to calls, which have the meaning of Segment's and go the way of every message. An event is a JSON object that
stands for itself: ``split_delivery`` puts into it whatever it needs of the request's headers, for an event that
cannot be stored is kept in quarantine and read again from there.
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
"""One event of a tool: decoded JSON, numbers with a fraction as Decimal."""

ID_CHARS_MAX: Final = 255
TEXT_CHARS_MAX: Final = 4_000
"""Of one free text; what is longer is cut. A message has to fit into its limit."""

TextPolicy = Literal["private", "property", "none"]
TEXT_POLICIES: Final[tuple[TextPolicy, ...]] = get_args(TextPolicy)
"""Where free text of people goes: ``context.private``, which no rule reads; ``properties.text``; or nowhere."""

_ABSENT: Final[tuple[Any, ...]] = (None, "", {}, [])

_ENCODER = msgspec.json.Encoder(decimal_format="number")


class Call(msgspec.Struct, kw_only=True):
    """What became of an event: a touchpoint if it has an ``event`` name, else an identify, or an alias.

    Values are as the tool sent them; None and empty ones are left out. Identities are checked where every message's
    are: junk is absent, e-mail addresses and phone numbers get their canonical form.
    """

    id: str
    """The tool's own id of the event, the same on each retry, or :func:`derive_event_id` of what never changes."""
    occurred_at: Any = None
    """When it happened, as text or number that :mod:`app.formats.timestamps` reads; None is when it arrived."""
    event: str | None = None
    channel: str = ""
    user_id: Any = None
    anonymous_id: Any = None
    email: Any = None
    phone: Any = None
    ids: Mapping[str, Any] = {}
    """Ids that tools gave, by identity kind: ``{"zendesk_user": 123}``; a list where one person has several."""
    previous_id: Any = None
    """Of an alias: the user id that ``user_id`` had before."""
    traits: Mapping[str, Any] = {}
    """Of an identify; null removes one."""
    properties: Mapping[str, Any] = {}
    """What the same event never says otherwise on a retry: no count of attempts, no time of sending."""
    context: Mapping[str, Any] = {}
    text: Mapping[str, Any] = {}
    """Free text of people: ``{"subject": .., "body": ..}``."""
    is_by_customer: bool = True
    """Whether the customer wrote it, and not somebody who answers: how it sounds is estimated only then."""


class Erasure(msgspec.Struct):
    """Somebody asks to be forgotten: queued, under the identity by which the tool knows them."""

    kind: str
    value: Any


class HandshakeReply(msgspec.Struct, kw_only=True):
    """The answer to a handshake. ``fetch_url``: an address to GET before it is given."""

    status: int = 200
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = {}
    fetch_url: str = ""


def _return_none(*_: Any) -> None:
    return None


def split_json_events(delivery: WebhookRequest) -> list[Event]:
    """The usual way to split: a JSON object is one event, an array is many. Raises Unreadable."""
    value = decode_json(delivery.body)
    if isinstance(value, dict):
        return [value]
    if isinstance(value, list):
        return value
    raise Unreadable("the body must be a JSON object or array")


@dataclass(frozen=True, kw_only=True, slots=True)
class Connector:
    """One kind of source. Adding one is adding a module to :mod:`app.connectors.tools` that names its ``CONNECTOR``."""

    key: str
    name: str
    family: str
    """email, support, survey, social, analytics, shop or any: where lists put it."""
    scheme: Scheme
    map_event: Callable[[Event, int], Iterable[Call | Erasure]]
    """The calls of one event; ``(event, received_at)``. Nothing for one that concerns no person. Raises Unreadable."""
    sample: bytes
    """A body as the tool documents it; tests send it."""
    sample_headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": "application/json"})
    split_delivery: Callable[[WebhookRequest], list[Event]] = split_json_events
    """The events of one body, each standing for itself. Raises Unreadable."""
    steps: tuple[str, ...] = ()
    """How to set it up, for the person who does; ``{url}`` is the webhook's address."""
    options: Mapping[str, str] = field(default_factory=dict)
    """What a source of this kind may be told besides, and what it means."""
    handshake: Callable[[WebhookRequest, Sequence[str]], HandshakeReply | None] = _return_none
    """Asked first, on every method, with the source's secrets: the answer where the request is no delivery."""
    handshake_signed: Callable[[WebhookRequest], HandshakeReply | None] = _return_none
    """The same for requests whose signature must hold first."""
    certificate_url: Callable[[WebhookRequest], str | None] = _return_none
    """An address whose content verifying needs. Raises SignatureRefused for one that is not the tool's."""
    single_use_token: Callable[[WebhookRequest], str | None] = _return_none
    """A token that may sign one body and no other, where a signature does not cover the body."""
    timeout_seconds: float = 10.0
    """How long the tool waits for its answer."""
    refused_status: int = 400
    """What tells the tool not to send a body again that can never be taken."""


def encode_event(event: Any) -> bytes:
    """An event as it is kept in quarantine, where it can be read again."""
    return _ENCODER.encode(event)


def derive_event_id(*parts: Any) -> str:
    """The id of an event that has none: a hash of what tells it from all others."""
    return "hash-" + blake2b(_ENCODER.encode(parts), digest_size=16).hexdigest()


def text_policy_of(options: Mapping[str, str]) -> TextPolicy:
    """The source's option ``text``; private, which no rule reads, unless it names another policy."""
    option = options.get("text", "private")
    return next((policy for policy in TEXT_POLICIES if policy == option), "private")


def to_segment_message(call: Call, text_policy: TextPolicy = "private", *, with_estimate: bool = False) -> bytes:
    """The call as JSON of a Segment-shaped message, ``with_estimate`` of how its text sounds where that is possible."""
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
