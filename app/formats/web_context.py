"""What is added to the context of messages that web pages send: who looked at the page, and how the visit came about.

The server's word, whatever the client says under these names: ``client`` (browser, system, device), ``acquisition``
(how a visit came about), ``channel_rule`` (what decided the channel), ``ip`` as the settings allow it, and the country
of ``location`` where there is a database of countries. Messages of other libraries pay for none of it. Pure.
"""

from __future__ import annotations

from decimal import Decimal
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Any, Final, TypeVar

import msgspec

from app.config import Settings
from app.enrichment import Attribution, Landing, attribute, channel_of
from app.enrichment.channel import Channel, classify
from app.enrichment.user_agents import USER_AGENT_CHARS_MAX, client_of, is_bot, speaks_for_visitor
from app.formats import json_text
from app.formats.segment_fields import ContextView
from app.touchpoint import Peer, SourceView

WEB: Final = "web"
KEEP_BOTS: Final = "keep"
DROP_BOTS: Final = "drop"

_BITS_KEPT: Final = {4: 24, 6: 48}
"""Of a truncated address, by the version of IP."""
_ADDRESS_CHARS_MAX: Final = 64
"""What is longer is no address, and must not be remembered."""

_CAMPAIGN: Final = {"source": "source", "medium": "medium", "name": "campaign", "term": "term", "content": "content"}
T = TypeVar("T")


class _Page(msgspec.Struct):
    """What ``context.page``, or the properties of a page call, say of the page."""

    url: Any = None
    search: Any = None
    referrer: Any = None


_PAGE = msgspec.json.Decoder(_Page, float_hook=Decimal)
_ANY = msgspec.json.Decoder(float_hook=Decimal)
_encode = msgspec.json.Encoder().encode


class WebEnricher:
    """Reads the web messages of one request. ``peer`` sent it; None stands for the operator, who may say anything.

    A message is a browser's where its library is. What only its type or a hint makes a web message may come from
    anywhere: it is read alike, but what is known of the connection says nothing of it.
    """

    def __init__(self, source: SourceView, settings: Settings, peer: Peer | None) -> None:
        self._bots = source.bots
        self._default_channel = source.default_channel
        self._addresses = settings.addresses
        self._tells_country = settings.country_database is not None and peer is not None
        self._visitor = peer if peer is not None and speaks_for_visitor(peer.user_agent) else None

    @property
    def keeps_refused(self) -> bool:
        """Whether messages of bots that are not let in go to quarantine."""
        return self._bots != DROP_BOTS

    def is_refused_bot(self, view: ContextView, sender: Channel) -> bool:
        """Of a web message."""
        if self._bots == KEEP_BOTS:
            return False
        user_agent = self._user_agent(view, sender)
        return user_agent is not None and is_bot(user_agent)

    def read(
        self, message_type: str, context: bytes, view: ContextView, properties: bytes, sender: Channel
    ) -> tuple[str, bytes]:
        """The channel, and the context with what is added to it."""
        explicit = view.channel if isinstance(view.channel, str) else None
        if sender.name != WEB:
            return classify(explicit, self._default_channel, sender).name, _without_ours(context, view)
        acquisition = _acquisition(message_type, view, properties)
        arrival = None
        if acquisition is not None and message_type == "page":
            arrival = Channel(channel_of(acquisition), acquisition.rule)
        channel = classify(explicit, self._default_channel, sender, arrival)
        user_agent = self._user_agent(view, sender)
        signed = sender.rule == "library"
        if not signed and acquisition is None and user_agent is None:
            return channel.name, _without_ours(context, view)
        facts = {
            "acquisition": None if acquisition is None else _encode(acquisition),
            "channel_rule": _encode(channel.rule),
            "client": None if user_agent is None else _client(user_agent[:USER_AGENT_CHARS_MAX]),
        }
        if signed:
            facts["ip"] = self._address(view)
        if signed and self._tells_country:
            facts["location"] = self._location(view)
        return channel.name, _with(context, view, facts)

    def _user_agent(self, view: ContextView, sender: Channel) -> str | None:
        if isinstance(view.user_agent, str) and view.user_agent.strip():
            return view.user_agent
        return self._visitor.user_agent if self._visitor is not None and sender.rule == "library" else None

    def _address(self, view: ContextView) -> bytes | None:
        """What the message carries, else the visitor's; JSON, or None where there is none to keep."""
        carried = json_text.text(bytes(view.ip)) if view.ip else None
        address = carried or (self._visitor.address if self._visitor is not None else None)
        kept = kept_address(address, self._addresses) if address and len(address) <= _ADDRESS_CHARS_MAX else None
        return None if kept is None else _encode(kept)

    def _location(self, view: ContextView) -> bytes | None:
        """As the message has it, but for the country, which is the database's."""
        said = bytes(view.location)
        location = json_text.members(said) if said.startswith(b"{") else {}
        location.pop("country", None)
        if self._visitor is not None and self._visitor.country is not None:
            location["country"] = _encode(self._visitor.country)
        return json_text.from_members(location) if location else None


@lru_cache(maxsize=4096)
def kept_address(address: str, how: str) -> str | None:
    """``how``: none, truncated (192.0.2.0, 2001:db8:1::) or full. What is no address is not kept."""
    if how == "none":
        return None
    try:
        read = ip_address(address.strip())
    except ValueError:
        return None
    mapped = getattr(read, "ipv4_mapped", None)
    read = mapped or read
    if how == "full":
        return str(read)
    plain = str(read).partition("%")[0]
    return str(ip_network(f"{plain}/{_BITS_KEPT[read.version]}", strict=False).network_address)


@lru_cache(maxsize=4096)
def _client(user_agent: str) -> bytes:
    return _encode(client_of(user_agent))


def _acquisition(message_type: str, view: ContextView, properties: bytes) -> Attribution | None:
    """Of a page view that comes from outside, and of any message that carries a campaign."""
    campaign = _campaign(view)
    if message_type != "page" and not campaign:
        return None
    page = _decoded(_PAGE, view.page) or _Page()
    said = (_decoded(_PAGE, properties) or _Page()) if message_type == "page" else _Page()
    clicks = _decoded(_ANY, view.click_ids)
    return attribute(
        Landing(
            url=_text(page.url, said.url),
            search=_text(page.search, said.search),
            referrer=_text(page.referrer, said.referrer, _referrer(view)),
            campaign=campaign,
            click_ids=_texts(clicks) if isinstance(clicks, dict) else {},
        )
    )


def _campaign(view: ContextView) -> dict[str, str]:
    if not view.campaign:
        return {}
    said = _decoded(_ANY, view.campaign)
    if not isinstance(said, dict):
        return {}
    return {ours: said[theirs] for theirs, ours in _CAMPAIGN.items() if isinstance(said.get(theirs), str)}


def _referrer(view: ContextView) -> Any:
    """``context.referrer`` is a URL, or an object that has one."""
    said = _decoded(_ANY, view.referrer) if view.referrer else None
    return said.get("url") if isinstance(said, dict) else said


def _texts(said: dict[str, Any]) -> dict[str, str]:
    return {name: value for name, value in said.items() if isinstance(value, str)}


def _text(*values: Any) -> str | None:
    """The first text that says something, else an empty one where there is any."""
    texts = [value for value in values if isinstance(value, str)]
    return next((text for text in texts if text), texts[0] if texts else None)


def _decoded(decoder: msgspec.json.Decoder[T], raw: bytes | msgspec.Raw) -> T | None:
    try:
        return decoder.decode(raw) if raw else None
    except msgspec.DecodeError:
        return None


def _without_ours(context: bytes, view: ContextView) -> bytes:
    if not (view.acquisition or view.client or view.channel_rule):
        return context
    members = json_text.members(context)
    for name in ("acquisition", "client", "channel_rule"):
        members.pop(name, None)
    return json_text.from_members(members)


def _with(context: bytes, view: ContextView, facts: dict[str, bytes | None]) -> bytes:
    """The context with each fact as it is, or without it where it is None."""
    if any(getattr(view, name) for name in facts):
        members = json_text.members(context) | {name: b"" if fact is None else fact for name, fact in facts.items()}
        return json_text.from_members({name: raw for name, raw in members.items() if raw})
    added = b",".join(b'"%s":%s' % (name.encode(), fact) for name, fact in facts.items() if fact is not None)
    inside = context[1:-1].strip()
    return b"{" + inside + (b"," if inside else b"") + added + b"}"
