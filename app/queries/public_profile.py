"""Public profile: the part of a customer that a page may read about its visitor."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import msgspec

from app.projection.fold import POINTS_UNLIMITED, fold
from app.projection.state import State, read_state, write_state
from app.queries.customer_state import Customer, Membership
from app.registry.visitor_tokens import Visitor
from app.rules.engine.json_equality import digest_value


class PublicStage(msgspec.Struct, frozen=True):
    """Current stage in one journey, with the stage's content for the page."""

    stage: str | None
    since: int | None
    valid_until: int | None
    content: Mapping[str, Any] | None


class PublicProfile(msgspec.Struct, frozen=True):
    """Public part of a customer.

    ``valid_until`` is the earliest instant at which any part changes if no message arrives; None means never.
    ``withheld`` is True if pages claim identities for the visitor that no server has vouched for. The profile leaves
    out the messages of these identities.
    """

    anonymous_id: str | None
    stages: Mapping[str, PublicStage]
    segments: list[Membership]
    traits: Mapping[str, Any]
    valid_until: int | None
    withheld: bool
    as_of: int


def public_profile_of(
    customer: Customer | None, visitor: Visitor, *, withheld: bool, public_traits: Collection[str], now: int
) -> PublicProfile:
    """Build the public profile of a visitor.

    ``customer`` is what the visitor may see of the customer, None if nothing. ``public_traits`` lists the declared
    traits that are public; for stages, segments and computed traits, the definitions decide.
    """
    if customer is None:
        return PublicProfile(visitor.anonymous_id, {}, [], {}, None, withheld, now)
    ruleset = customer.ruleset
    journeys = {journey.key: journey for journey in ruleset.journeys if journey.public}
    segments = {segment.key for segment in ruleset.segments if segment.public}
    computed = {trait.key for trait in ruleset.traits}
    declared = {name for name in public_traits if name not in computed}
    values = {trait.key for trait in ruleset.traits if trait.public}
    ends = [customer.until.get(f"journey:{key}") for key in journeys]
    ends += [customer.until.get(f"segment:{key}") for key in segments]
    ends += _trait_ends(customer, values, declared)
    return PublicProfile(
        visitor.anonymous_id,
        {
            key: PublicStage(place.stage, place.since, place.valid_until, journeys[key].contents.get(place.stage or ""))
            for key, place in customer.stages.items()
            if key in journeys
        },
        [membership for membership in customer.segments if membership.key in segments],
        {name: value for name, value in customer.traits.items() if name in values or name in declared},
        min((end for end in ends if end is not None), default=None),
        withheld,
        customer.as_of,
    )


def _trait_ends(customer: Customer, computed: Collection[str], declared: Collection[str]) -> Iterator[int | None]:
    """Yield the instant at which each trait changes through time or because a future message takes effect."""
    state, ruleset = customer.state, customer.ruleset
    if state.born is None:
        return
    future = list(_future_states(customer)) if state.pending and (computed or declared) else []
    for key in computed:
        value, until = ruleset.compute_trait(key, state, customer.as_of)
        for instant, future_state in future:
            if until is None or until >= instant:
                future_value, future_until = ruleset.compute_trait(key, future_state, instant)
                until = future_until if digest_value(future_value) == digest_value(value) else instant
        yield until
    for name in declared:
        current_digest = digest_value(state.traits.get(name))
        yield next(
            (at for at, future_state in future if digest_value(future_state.traits.get(name)) != current_digest), None
        )


def _future_states(customer: Customer) -> Iterator[tuple[int, State]]:
    """Yield the state at each instant at which a future message takes effect."""
    for instant in sorted({input.at for input in customer.state.pending}):
        future_state = read_state(write_state(customer.state, customer.ruleset), customer.ruleset)
        fold(future_state, customer.ruleset, (), instant, POINTS_UNLIMITED)
        yield instant, future_state
