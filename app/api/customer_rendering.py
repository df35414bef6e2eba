"""JSON objects of one customer: state, intervals in stages and segments, touchpoints and links."""

from __future__ import annotations

from typing import Any

import msgspec

from app.http.responses import format_instant, format_uuid
from app.projection.intervals import Interval
from app.projection.state import Cause
from app.queries.customer_state import CurrentStage, Customer, Membership
from app.queries.timeline import LedgerLink, TimelineEntry


def render_customer(customer: Customer) -> dict[str, Any]:
    return {
        "id": format_uuid(customer.id),
        "identities": customer.identities,
        "traits": customer.traits,
        "stages": {journey: _render_current_stage(stage) for journey, stage in customer.stages.items()},
        "segments": [render_membership(membership) for membership in customer.segments],
    }


def _render_current_stage(stage: CurrentStage) -> dict[str, Any]:
    return {
        "stage": stage.stage,
        "since": format_instant(stage.since),
        "valid_until": format_instant(stage.valid_until),
        "cause": stage.cause,
    }


def render_membership(membership: Membership) -> dict[str, Any]:
    return {
        "key": membership.key,
        "since": format_instant(membership.since),
        "valid_until": format_instant(membership.valid_until),
    }


def render_stage_stay(stay: Interval, as_of: int) -> dict[str, Any]:
    """Return one interval in a stage as JSON; its end is null if it is after ``as_of``."""
    left_at, left_cause = _find_end(stay, as_of)
    return {
        "journey": stay.definition.partition(":")[2],
        "stage": stay.value,
        "entered_at": format_instant(stay.entered_at),
        "left_at": format_instant(left_at),
        "cause": stay.entered_cause,
        "left_cause": left_cause,
    }


def render_segment_stay(stay: Interval, as_of: int) -> dict[str, Any]:
    """Return one interval in a segment as JSON; its end is null if it is after ``as_of``."""
    left_at, left_cause = _find_end(stay, as_of)
    return {
        "key": stay.definition.partition(":")[2],
        "since": format_instant(stay.entered_at),
        "left_at": format_instant(left_at),
        "cause": stay.entered_cause,
        "left_cause": left_cause,
    }


def _find_end(stay: Interval, as_of: int) -> tuple[int | None, Cause | None]:
    if stay.left_at is None or stay.left_at > as_of:
        return None, None
    return stay.left_at, stay.left_cause


def render_touchpoint(entry: TimelineEntry) -> dict[str, Any]:
    return {
        "message_id": entry.message_id,
        "source": entry.source,
        "type": entry.type,
        "name": entry.name,
        "channel": entry.channel,
        "occurred_at": format_instant(entry.occurred_at),
        "received_at": format_instant(entry.received_at),
        "sent_at": format_instant(entry.sent_at),
        "original_timestamp": entry.original_timestamp,
        "identities": entry.identities,
        "properties": msgspec.Raw(entry.properties),
        "context": msgspec.Raw(entry.context),
        "traits": None if entry.traits is None else msgspec.Raw(entry.traits),
    }


def render_link(link: LedgerLink) -> dict[str, Any]:
    return {
        "weaker": link.weaker,
        "stronger": link.stronger,
        "kind": link.kind,
        "joined": link.joined and link.undone_at is None,
        "vouched": link.vouched,
        "occurred_at": format_instant(link.occurred_at),
        "message_id": link.message_id,
        "source": link.source,
        "undone_at": format_instant(link.undone_at),
    }
