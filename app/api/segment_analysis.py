"""Questions about the whole base: what an unsaved rule would say, what a change would move, is it right, is it used."""

from __future__ import annotations

import time
from typing import Annotated, Any, Final, TypeVar

import msgspec
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from app.api.schemas import (
    DryRunIn,
    DryRunOut,
    PreviewIn,
    PreviewOut,
    SegmentHealthReportOut,
    VerifiedOut,
    VerifyIn,
    describe_json_body,
)
from app.api.secret_routes import add_secret_route
from app.api.segments import SegmentKey
from app.errors import BadRequest, InvalidDefinition
from app.http.as_of import parse_as_of
from app.http.bodies import parse_json, read_body
from app.http.dependencies import Services, get_services
from app.http.disconnects import run_until_disconnect
from app.http.responses import format_instant, format_uuid, json_response, render_explanation
from app.insight.customer_scan import LabelledCustomer
from app.insight.rule_preview import MembershipChange, RulePreviews
from app.insight.segment_health import Overlap, SegmentHealthQueries
from app.insight.verification import ObservedMembership, SegmentVerifier
from app.rules.language.definitions import parse_rule
from app.rules.language.nodes import Rule

_BODY_BYTES_MAX: Final = 500_000
_Body = TypeVar("_Body", bound=msgspec.Struct)


def add_segment_analysis_routes(app: FastAPI) -> None:
    for path, method, endpoint, model, extra, failures, summary in (
        (
            "preview",
            "POST",
            preview_rule,
            PreviewOut,
            describe_json_body(PreviewIn),
            (400, 422, 503),
            "Count a rule unsaved",
        ),
        (
            "health",
            "GET",
            get_segment_health,
            SegmentHealthReportOut,
            None,
            (503,),
            "Overlaps, duplicates, unused segments",
        ),
        (
            "{key}/dry-run",
            "POST",
            dry_run_segment,
            DryRunOut,
            describe_json_body(DryRunIn),
            (400, 404, 422, 503),
            "Who would enter, leave and stay if the rule were changed",
        ),
        (
            "{key}/verify",
            "POST",
            verify_segment,
            VerifiedOut,
            describe_json_body(VerifyIn, required=False),
            (400, 404, 503),
            "Recompute from the log and compare",
        ),
    ):
        add_secret_route(
            app,
            method,
            f"/v1/segments/{path}",
            endpoint,
            tag="segments",
            summary=summary,
            model=model,
            failures=failures,
            extra=extra,
        )


async def preview_rule(request: Request) -> Response:
    """An exact count over the real base by the interpreter that saved rules have, with evidence for a sample.

    With `within_ms` a random part of the base is looked at until the time is over, and the count is estimated with its
    95 % interval. Members are those of `as_of`. At most two questions about the whole base run at a time.
    """
    services = get_services(request)
    began = time.monotonic()
    asked = await _read(request, _Preview)
    at, _ = parse_as_of(asked.as_of, services.clock.now())
    rule = _rule(asked.rule, services)
    with services.heavy_read_slots.acquire():
        found = await run_until_disconnect(
            request, _previews(services).preview(rule, at, asked.sample, asked.within_ms)
        )
    return json_response(
        {
            "count": found.estimate if found.exact else None,
            "estimate": found.estimate,
            "low": found.low,
            "high": found.high,
            "exact": found.exact,
            "customers_scanned": found.customers_scanned,
            "customers_total": found.customers_total,
            "sample": [
                {
                    **_named_json(each.customer),
                    "since": format_instant(each.why.since),
                    "valid_until": format_instant(each.why.valid_until),
                    "explanation": render_explanation(each.why.tree),
                }
                for each in found.sample
            ],
            "took_ms": _milliseconds(began),
            "as_of": format_instant(at),
        }
    )


async def dry_run_segment(request: Request, key: SegmentKey) -> Response:
    """Both rules over the real base, nothing saved. `changes` names the other definitions that would change with it."""
    services = get_services(request)
    began = time.monotonic()
    asked = await _read(request, _DryRun)
    rule = _rule(asked.rule, services)
    now = services.clock.now()
    with services.heavy_read_slots.acquire():
        found = await run_until_disconnect(request, _previews(services).dry_run(key, rule, now, asked.sample))
    return json_response(
        {
            "segment": key,
            "enter": _moved_json(found.enter),
            "leave": _moved_json(found.leave),
            "stay": _moved_json(found.stay),
            "changes": found.changes,
            "customers_total": found.customers_total,
            "took_ms": _milliseconds(began),
            "as_of": format_instant(now),
        }
    )


async def verify_segment(request: Request, key: SegmentKey) -> Response:
    """Truth, since and all stays of each customer, against a replay of its log. `differing` must be 0."""
    services = get_services(request)
    began = time.monotonic()
    asked = await _read(request, _Verify)
    views = SegmentVerifier(services.pool, services.registry, services.settings, services.clock)
    with services.heavy_read_slots.acquire():
        found = await run_until_disconnect(request, views.verify_segment(key, asked.sample))
    return json_response(
        {
            "segment": key,
            "customers": found.customers,
            "stored": found.stored,
            "members": found.members,
            "differing": found.differing,
            "differences": [
                {
                    "customer": format_uuid(each.customer),
                    "stored": _said_json(each.stored),
                    "recomputed": _said_json(each.recomputed),
                }
                for each in found.differences
            ],
            "took_ms": _milliseconds(began),
            "as_of": format_instant(found.as_of),
        }
    )


async def get_segment_health(request: Request) -> Response:
    """From the stored intervals; of a base of more than 5,000 customers the overlaps are those of a random part."""
    services = get_services(request)
    await services.segment_usage.flush()
    now = services.clock.now()
    with services.heavy_read_slots.acquire():
        found = await run_until_disconnect(request, SegmentHealthQueries(services.pool, services.registry).report(now))
    return json_response(
        {
            "customers_total": found.customers_total,
            "customers_scanned": found.customers_scanned,
            "sampled": found.customers_scanned < found.customers_total,
            "segments": [
                {
                    **msgspec.structs.asdict(each),
                    "last_read_at": format_instant(each.last_read_at),
                    "last_changed_at": format_instant(each.last_changed_at),
                }
                for each in found.segments
            ],
            "overlaps": found.overlaps,
            "overlaps_total": found.overlaps_total,
            "near_duplicates": [_pair(each) for each in found.near_duplicates],
            "same_meaning": found.same_meaning,
            **{flag: [each.key for each in found.segments if flag in each.flags] for flag in _FLAGS},
            "as_of": format_instant(now),
        }
    )


_FLAGS: Final = ("empty", "tiny", "never_read", "stale")

_Sample = Annotated[int, msgspec.Meta(ge=0, le=100)]


class _Preview(msgspec.Struct, forbid_unknown_fields=True):
    rule: Any = msgspec.UNSET
    sample: _Sample = 10
    as_of: str | None = None
    within_ms: Annotated[int, msgspec.Meta(ge=1, le=60_000)] | None = None


class _DryRun(msgspec.Struct, forbid_unknown_fields=True):
    rule: Any = msgspec.UNSET
    sample: _Sample = 10


class _Verify(msgspec.Struct, forbid_unknown_fields=True):
    sample: Annotated[int, msgspec.Meta(ge=1, le=1_000_000_000)] | None = None


async def _read(request: Request, type: type[_Body]) -> _Body:
    """A body may be left out where nothing in it must be said."""
    body = await read_body(request, _BODY_BYTES_MAX)
    try:
        return msgspec.convert(parse_json(body) if body else {}, type)
    except msgspec.ValidationError as error:
        raise BadRequest(f"The body does not fit: {error}.") from None


def _rule(data: Any, services: Services) -> Rule:
    """Raises :class:`InvalidDefinition` as for a rule that is to be saved."""
    if data is msgspec.UNSET:
        raise InvalidDefinition("/rule", "it is missing", "Give the rule to ask about.")
    return parse_rule(data, "/rule", services.settings.limits)


def _previews(services: Services) -> RulePreviews:
    return RulePreviews(services.pool, services.registry, services.settings)


def _named_json(customer: LabelledCustomer) -> dict[str, Any]:
    return {"id": format_uuid(customer.id), "identities": customer.identities}


def _moved_json(moved: MembershipChange) -> dict[str, Any]:
    return {"count": moved.count, "sample": [_named_json(each) for each in moved.sample]}


def _said_json(said: ObservedMembership) -> dict[str, Any]:
    stays = [{"since": format_instant(entered), "left_at": format_instant(left)} for entered, left in said.stays]
    return {"member": said.member, "since": format_instant(said.since), "stays": stays}


def _pair(overlap: Overlap) -> tuple[str, str]:
    return overlap.segments


def _milliseconds(began: float) -> int:
    return round((time.monotonic() - began) * 1_000)
