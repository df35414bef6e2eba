"""Reference model of the whole service, over a list of all accepted messages.

It stores nothing and computes each result from scratch. To find customers, it joins all identity claims. To find a
history, it evaluates the rules with the reference evaluator at every instant at which a result could change.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.support.reference_rules import Entry, Evaluator, TrackEntry, TraitsEntry, World

STRONGEST_FIRST = ["user_id", "email", "phone", "tool", "anonymous_id"]


@dataclass(frozen=True)
class SentMessage:
    """One message that Segue has accepted."""

    t: int
    message_id: str
    type: str
    ids: Mapping[str, str]
    name: str = ""
    previous: str | None = None
    properties: Mapping[str, Any] = field(default_factory=dict)
    traits: Mapping[str, Any] | None = None
    channel: str = "server"
    source: str = "default"
    trust: str = "server"
    received: int = 0
    """Time of receipt; it matters only for claims of a public key."""
    is_vouched_visitor: bool = False
    """True if the sender has proven the anonymous id, and the site's server vouches for the user id."""

    @property
    def identities(self) -> list[str]:
        """Identities of the message as ``kind:value``, strongest first."""
        return [f"{kind}:{self.ids[kind]}" for kind in STRONGEST_FIRST if kind in self.ids]

    @property
    def order(self) -> tuple[int, str, str]:
        return (self.t, self.message_id, self.source)

    def vouches_for(self, weaker: str) -> bool:
        """Return whether a server vouches for the link between ``weaker`` and the strongest identity."""
        is_visitor = self.is_vouched_visitor and "user_id" in self.ids
        return self.trust == "server" or (is_visitor and weaker == f"anonymous_id:{self.ids.get('anonymous_id')}")

    @property
    def claimed_at(self) -> tuple[int, str, str]:
        """Order of the links of the message."""
        t = self.t if self.trust == "server" else max(self.t, self.received)
        return (t, self.message_id, self.source)


@dataclass(frozen=True)
class Claim:
    """A link between two identities, as one message claims it."""

    message: SentMessage
    weaker: str
    stronger: str
    is_alias: bool = False


def customers(messages: Sequence[SentMessage], caps: Mapping[str, int]) -> set[frozenset[str]]:
    """Return all identities, grouped into customers."""
    carried = {name for message in messages for name in message.identities}
    groups = [{name} for name in carried]
    claims = []
    for message in messages:
        strongest, *weaker = message.identities
        claims += [Claim(message, name, strongest) for name in weaker]
        if message.previous is not None and message.previous != message.ids.get("user_id"):
            user, anonymous = f"user_id:{message.previous}", f"anonymous_id:{message.previous}"
            if anonymous in carried:
                claims.append(Claim(message, anonymous, strongest))
            if message.trust != "public" and (user in carried or anonymous not in carried):
                claims.append(Claim(message, user, strongest, is_alias=True))
    first_claims: dict[tuple[str, str], Claim] = {}
    for claim in sorted(claims, key=_place):
        first_claims.setdefault((claim.weaker, claim.stronger), claim)
    for claim in first_claims.values():
        for name in (claim.weaker, claim.stronger):
            if not any(name in group for group in groups):
                groups.append({name})
        one_group = next(group for group in groups if claim.weaker in group)
        other = next(group for group in groups if claim.stronger in group)
        if one_group is not other and _may_be_one(one_group, other, claim, caps):
            _merge(groups, claim.weaker, claim.stronger)
    # A user id that only an alias mentions, and that is in no group because of a limit, does not count.
    return {frozenset(group) for group in groups if not group.isdisjoint(carried)}


def _place(claim: Claim) -> tuple[bool, bool, tuple[int, str, str], int, str]:
    """Return the sort key of a claim: vouched ones first, then aliases, then by message.

    Within a message, claims of stronger identities come first.
    """
    rank = STRONGEST_FIRST.index(claim.weaker.partition(":")[0])
    is_vouched = claim.message.vouches_for(claim.weaker)
    return (not is_vouched, not claim.is_alias, claim.message.claimed_at, rank, claim.weaker)


def _may_be_one(a: set[str], b: set[str], claim: Claim, caps: Mapping[str, int]) -> bool:
    if not claim.is_alias and all(any(name.startswith("user_id:") for name in group) for group in (a, b)):
        return False
    together = a | b
    if len(together) > caps.get("total", len(together)):
        return False
    return all(
        sum(name.startswith(kind + ":") for name in together) <= cap for kind, cap in caps.items() if kind != "total"
    )


def _merge(groups: list[set[str]], a: str, b: str) -> None:
    group_a = next(group for group in groups if a in group)
    group_b = next(group for group in groups if b in group)
    if group_a is not group_b:
        groups.remove(group_b)
        group_a |= group_b


def of_customer(messages: Sequence[SentMessage], group: frozenset[str]) -> list[SentMessage]:
    return sorted(
        (message for message in messages if message.identities[0] in group), key=lambda message: message.order
    )


@dataclass(frozen=True)
class Definitions:
    segments: Mapping[str, Any]
    journeys: Mapping[str, Sequence[tuple[str, Any]]]
    default_journey: str = "main"
    traits: Mapping[str, Any] = field(default_factory=dict)
    """Computed traits: key -> value expression"""
    timezone: str = "UTC"


def world_of(messages: Sequence[SentMessage], definitions: Definitions) -> World:
    return World(
        definitions.segments,
        definitions.journeys,
        definitions.traits,
        default_journey=definitions.default_journey,
        timezone=definitions.timezone,
        bucketing_key=bucketing_key(messages),
    )


def bucketing_key(messages: Sequence[SentMessage]) -> tuple[str, str] | None:
    """Return (kind, value) of the strongest identity. Of several values of this kind, return the earliest."""
    for kind in STRONGEST_FIRST:
        carried = [message for message in messages if kind in message.ids]
        if carried:
            return kind, min(carried, key=lambda message: message.order).ids[kind]
    return None


def entries(messages: Sequence[SentMessage]) -> list[Entry]:
    """Return the messages of a customer as input of the reference rules."""
    return [
        _touchpoint(message) if message.type in ("track", "page", "screen") else _traits_entry(message)
        for message in messages
    ]


def _touchpoint(message: SentMessage) -> TrackEntry:
    properties = json.dumps(message.properties)
    return TrackEntry(
        message.t, message.message_id, message.name, message.channel, message.source, properties, "{}", "{}"
    )


def _traits_entry(message: SentMessage) -> TraitsEntry:
    return TraitsEntry(
        message.t, message.message_id, message.source, (message.traits or {}) if message.type == "identify" else {}
    )


CurrentValues = dict[str, str]
"""The true segments and the current stage of each journey, at one instant. Other definitions are absent."""


def current_values(messages: Sequence[SentMessage], t: int, definitions: Definitions) -> CurrentValues:
    """Return the segments and stages at ``t``, given the messages of one customer."""
    return _standing(Evaluator(entries(messages), t, world_of(messages, definitions)), t, definitions)


def _standing(evaluator: Evaluator, t: int, definitions: Definitions) -> CurrentValues:
    result: CurrentValues = {}
    for key, rule in definitions.segments.items():
        if evaluator.holds(rule, t):
            result[f"segment:{key}"] = ""
    for journey in definitions.journeys:
        stage = evaluator.stage(journey, t)
        if stage is not None:
            result[f"journey:{journey}"] = stage
    return result


Interval = tuple[str, str, int, int | None]
"""(definition, value, entered_at, left_at)"""


def intervals(messages: Sequence[SentMessage], now: int, definitions: Definitions) -> set[Interval]:
    """Return the customer's intervals up to ``now``. The rules are evaluated at every instant of possible change."""
    evaluator = Evaluator(entries(messages), now, world_of(messages, definitions))
    rules = [*definitions.segments.values(), *(rule for stages in definitions.journeys.values() for _, rule in stages)]
    instants = sorted({t for rule in rules for t in evaluator.instants(rule) if t <= now})
    result: set[Interval] = set()
    open_since: dict[tuple[str, str], int] = {}
    before: CurrentValues = {}
    for t in instants:
        after = _standing(evaluator, t, definitions)
        for definition in before.keys() | after.keys():
            old, new = before.get(definition), after.get(definition)
            if old == new:
                continue
            if old is not None:
                result.add((definition, old, open_since.pop((definition, old)), t))
            if new is not None:
                open_since[definition, new] = t
        before = after
    return result | {(definition, value, t, None) for (definition, value), t in open_since.items()}
