"""Enrichment of web messages: adds browser, attribution, IP address and country to their context. Pure.

The server sets these fields of the context, and replaces those that a client sent:

- ``client``: browser, operating system and device.
- ``acquisition``: the source of the visit.
- ``channel_rule``: the rule that decided the channel.
- ``ip``: the address, as far as the settings allow.
- ``location``: its country, if a country database is configured.

Messages of other libraries skip this work.
"""

from __future__ import annotations

from decimal import Decimal
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Any, Final, Literal, TypeVar, assert_never

import msgspec

from app.config import Settings
from app.enrichment import Attribution, Landing, attribute, channel_of
from app.enrichment.channel import Channel, classify
from app.enrichment.user_agents import USER_AGENT_CHARS_MAX, client_of, is_bot, speaks_for_visitor
from app.formats import json_text
from app.formats.segment_fields import ContextView
from app.touchpoint import Peer, SourceView

WEB: Final = "web"

_MASK_BITS: Final = {4: 24, 6: 48}
"""IP version -> number of leading bits that a truncated address keeps."""
_ADDRESS_CHARS_MAX: Final = 64
"""Maximum length of an address in characters.

Longer text is not an address, and must not fill the cache of :func:`mask_address`.
"""

_CAMPAIGN_NAMES: Final = {
    "source": "source",
    "medium": "medium",
    "name": "campaign",
    "term": "term",
    "content": "content",
}
T = TypeVar("T")
AddressPolicy = Literal["none", "truncated", "full"]
"""Part of a visitor's IP address that is stored: see ``Settings.addresses``."""


class _Page(msgspec.Struct):
    """The page, from ``context.page`` or from the properties of a page message."""

    url: Any = None
    search: Any = None
    referrer: Any = None


_PAGE = msgspec.json.Decoder(_Page, float_hook=Decimal)
_ANY = msgspec.json.Decoder(float_hook=Decimal)
_encode = msgspec.json.Encoder().encode


class WebEnricher:
    """Enriches the web messages of one request. ``peer`` is the sender, or None for an import or replay.

    A message comes from a browser if its library is a browser library. A message that is a web message only by its
    type or by a channel hint may come from a server. It is enriched too, but without data of the connection.
    """

    def __init__(self, source: SourceView, settings: Settings, peer: Peer | None) -> None:
        self._bots = source.bots
        self._default_channel = source.default_channel
        self._addresses = settings.addresses
        self._adds_country = settings.country_database is not None and peer is not None
        self._visitor = peer if peer is not None and speaks_for_visitor(peer.user_agent) else None

    @property
    def keeps_refused(self) -> bool:
        """True if refused messages of bots go to quarantine."""
        match self._bots:
            case "quarantine" | "keep":
                return True
            case "drop":
                return False
            case _:
                assert_never(self._bots)

    def is_refused_bot(self, view: ContextView, sender: Channel) -> bool:
        """Return whether this web message comes from a bot that the source does not accept."""
        if self._bots == "keep":
            return False
        user_agent = self._find_user_agent(view, sender)
        return user_agent is not None and is_bot(user_agent)

    def enrich(
        self, message_type: str, context: bytes, view: ContextView, properties: bytes, sender: Channel
    ) -> tuple[str, bytes]:
        """Return the channel and the enriched context."""
        explicit = view.channel if isinstance(view.channel, str) else None
        if sender.name != WEB:
            return classify(explicit, self._default_channel, sender).name, _drop_server_fields(context, view)
        acquisition = _find_attribution(message_type, view, properties)
        arrival = None
        if acquisition is not None and message_type == "page":
            arrival = Channel(channel_of(acquisition), acquisition.rule)
        channel = classify(explicit, self._default_channel, sender, arrival)
        user_agent = self._find_user_agent(view, sender)
        signed = sender.rule == "library"
        if not signed and acquisition is None and user_agent is None:
            return channel.name, _drop_server_fields(context, view)
        facts = {
            "acquisition": None if acquisition is None else _encode(acquisition),
            "channel_rule": _encode(channel.rule),
            "client": None if user_agent is None else _encode_client(user_agent[:USER_AGENT_CHARS_MAX]),
        }
        if signed:
            facts["ip"] = self._masked_address(view)
        if signed and self._adds_country:
            facts["location"] = self._find_location(view)
        return channel.name, _add_facts(context, view, facts)

    def _find_user_agent(self, view: ContextView, sender: Channel) -> str | None:
        if isinstance(view.user_agent, str) and view.user_agent.strip():
            return view.user_agent
        return self._visitor.user_agent if self._visitor is not None and sender.rule == "library" else None

    def _masked_address(self, view: ContextView) -> bytes | None:
        """Return the IP address to store, as JSON: that of the message, else that of the visitor's request; or None."""
        carried = json_text.decode_text(bytes(view.ip)) if view.ip else None
        address = carried or (self._visitor.address if self._visitor is not None else None)
        masked = mask_address(address, self._addresses) if address and len(address) <= _ADDRESS_CHARS_MAX else None
        return None if masked is None else _encode(masked)

    def _find_location(self, view: ContextView) -> bytes | None:
        """Return the message's location, with the country from the database."""
        sent_location = bytes(view.location)
        location = json_text.decode_members(sent_location) if sent_location.startswith(b"{") else {}
        location.pop("country", None)
        if self._visitor is not None and self._visitor.country is not None:
            location["country"] = _encode(self._visitor.country)
        return json_text.encode_members(location) if location else None


@lru_cache(maxsize=4096)
def mask_address(address: str, policy: AddressPolicy) -> str | None:
    """Return the part of an address that the policy allows, such as 192.0.2.0; None if it is not an address."""
    if policy == "none":
        return None
    try:
        parsed = ip_address(address.strip())
    except ValueError:
        return None
    parsed = getattr(parsed, "ipv4_mapped", None) or parsed
    if policy == "full":
        return str(parsed)
    if policy == "truncated":
        without_zone = str(parsed).partition("%")[0]
        return str(ip_network(f"{without_zone}/{_MASK_BITS[parsed.version]}", strict=False).network_address)
    assert_never(policy)


@lru_cache(maxsize=4096)
def _encode_client(user_agent: str) -> bytes:
    return _encode(client_of(user_agent))


def _find_attribution(message_type: str, view: ContextView, properties: bytes) -> Attribution | None:
    """Return the attribution of a page view that starts a visit, or of any message that has a campaign."""
    campaign = _find_campaign(view)
    if message_type != "page" and not campaign:
        return None
    page = _decode_or_none(_PAGE, view.page) or _Page()
    page_properties = (_decode_or_none(_PAGE, properties) or _Page()) if message_type == "page" else _Page()
    clicks = _decode_or_none(_ANY, view.click_ids)
    return attribute(
        Landing(
            url=_find_first_text(page.url, page_properties.url),
            search=_find_first_text(page.search, page_properties.search),
            referrer=_find_first_text(page.referrer, page_properties.referrer, _find_referrer(view)),
            campaign=campaign,
            click_ids=_keep_texts(clicks) if isinstance(clicks, dict) else {},
        )
    )


def _find_campaign(view: ContextView) -> dict[str, str]:
    if not view.campaign:
        return {}
    campaign = _decode_or_none(_ANY, view.campaign)
    if not isinstance(campaign, dict):
        return {}
    return {
        name: campaign[sent_name]
        for sent_name, name in _CAMPAIGN_NAMES.items()
        if isinstance(campaign.get(sent_name), str)
    }


def _find_referrer(view: ContextView) -> Any:
    """Return the URL in ``context.referrer``, which is a URL or an object with ``url``."""
    referrer = _decode_or_none(_ANY, view.referrer) if view.referrer else None
    return referrer.get("url") if isinstance(referrer, dict) else referrer


def _keep_texts(values: dict[str, Any]) -> dict[str, str]:
    return {name: value for name, value in values.items() if isinstance(value, str)}


def _find_first_text(*values: Any) -> str | None:
    """Return the first text that is not empty; else an empty text if there is one, else None."""
    texts = [value for value in values if isinstance(value, str)]
    return next((text for text in texts if text), texts[0] if texts else None)


def _decode_or_none(decoder: msgspec.json.Decoder[T], raw: bytes | msgspec.Raw) -> T | None:
    try:
        return decoder.decode(raw) if raw else None
    except msgspec.DecodeError:
        return None


def _drop_server_fields(context: bytes, view: ContextView) -> bytes:
    if not (view.acquisition or view.client or view.channel_rule):
        return context
    members = json_text.decode_members(context)
    for name in ("acquisition", "client", "channel_rule"):
        members.pop(name, None)
    return json_text.encode_members(members)


def _add_facts(context: bytes, view: ContextView, facts: dict[str, bytes | None]) -> bytes:
    """Return the context with each fact set, or removed if it is None."""
    if any(getattr(view, name) for name in facts):
        members = json_text.decode_members(context) | {
            name: b"" if fact is None else fact for name, fact in facts.items()
        }
        return json_text.encode_members({name: raw for name, raw in members.items() if raw})
    added = b",".join(b'"%s":%s' % (name.encode(), fact) for name, fact in facts.items() if fact is not None)
    inside = context[1:-1].strip()
    return b"{" + inside + (b"," if inside else b"") + added + b"}"
