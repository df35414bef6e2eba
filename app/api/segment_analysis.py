"""Routes that analyze all customers: rule preview, dry run of a change, verification, segment health."""

from __future__ import annotations

import time
from typing import Annotated, Any, Final

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
from app.errors import InvalidDefinition
from app.http.as_of import parse_as_of
from app.http.bodies import read_struct
from app.http.dependencies import Services, get_services
from app.http.responses import format_instant, format_uuid, json_response, render_explanation
from app.insight.customer_scan import LabelledCustomer
from app.insight.rule_preview import MembershipChange, RulePreviews
from app.insight.segment_health import SegmentHealthQueries
from app.insight.verification import ObservedMembership, SegmentVerifier
from app.rules.language.definitions import parse_rule
from app.rules.language.nodes import Rule

_BODY_BYTES_MAX: Final = 500_000


def add_segment_analysis_routes(app: FastAPI) -> None:
    for path, method, endpoint, model, extra, failures, summary in (
        (
            "/v1/segments/preview",
            "POST",
            preview_rule,
            PreviewOut,
            describe_json_body(PreviewIn),
            (400, 422, 503, 504),
            "Preview a rule",
        ),
        (
            "/v1/segment-health",
            "GET",
            get_segment_health,
            SegmentHealthReportOut,
            None,
            (503, 504),
            "Report overlapping, duplicate and unused segments",
        ),
        (
            "/v1/segments/{key}/dry-run",
            "POST",
            dry_run_segment,
            DryRunOut,
            describe_json_body(DryRunIn),
            (400, 404, 422, 503, 504),
            "Show who a changed rule would move",
        ),
        (
            "/v1/segments/{key}/verify",
            "POST",
            verify_segment,
            VerifiedOut,
            describe_json_body(VerifyIn, required=False),
            (400, 404, 503, 504),
            "Verify a segment against the log",
        ),
    ):
        add_secret_route(
            app,
            method,
            path,
            endpoint,
            tag="segments",
            summary=summary,
            model=model,
            failures=failures,
            extra=extra,
        )


async def preview_rule(request: Request) -> Response:
    """Count the customers who match an unsaved rule, and explain a sample of them.

    The count is exact. With `within_ms` Segue scans a random sample of customers until the time is over and returns an
    estimate with its 95 % confidence interval. At most two analyses of all customers run at a time.
    """
    services = get_services(request)
    started_at = time.monotonic()
    body = await read_struct(request, _PreviewBody, _BODY_BYTES_MAX, may_be_empty=True)
    at, _ = parse_as_of(body.as_of, services.clock.now())
    rule = _parse_rule(body.rule, services)
    preview = await services.heavy_reads.run(
        request, _create_previews(services).preview(rule, at, body.sample, body.within_ms)
    )
    return json_response(
        {
            "count": preview.estimate if preview.exact else None,
            "estimate": preview.estimate,
            "low": preview.low,
            "high": preview.high,
            "exact": preview.exact,
            "customers_scanned": preview.customers_scanned,
            "customers_total": preview.customers_total,
            "sample": [
                {
                    **_render_labelled_customer(member.customer),
                    "since": format_instant(member.why.since),
                    "valid_until": format_instant(member.why.valid_until),
                    "explanation": render_explanation(member.why.tree),
                }
                for member in preview.sample
            ],
            "took_ms": _measure_milliseconds(started_at),
            "as_of": format_instant(at),
        }
    )


async def dry_run_segment(request: Request, key: SegmentKey) -> Response:
    """Evaluate the current and the new rule for all customers without saving anything.

    `changes` lists the other definitions whose results would change too.
    """
    services = get_services(request)
    started_at = time.monotonic()
    body = await read_struct(request, _DryRunBody, _BODY_BYTES_MAX, may_be_empty=True)
    rule = _parse_rule(body.rule, services)
    now = services.clock.now()
    dry_run = await services.heavy_reads.run(request, _create_previews(services).dry_run(key, rule, now, body.sample))
    return json_response(
        {
            "segment": key,
            "enter": _render_membership_change(dry_run.enter),
            "leave": _render_membership_change(dry_run.leave),
            "stay": _render_membership_change(dry_run.stay),
            "changes": dry_run.changes,
            "customers_total": dry_run.customers_total,
            "took_ms": _measure_milliseconds(started_at),
            "as_of": format_instant(now),
        }
    )


async def verify_segment(request: Request, key: SegmentKey) -> Response:
    """Compare stored memberships with a replay of each customer's log. `differing` is 0 unless Segue has a fault."""
    services = get_services(request)
    started_at = time.monotonic()
    body = await read_struct(request, _VerifyBody, _BODY_BYTES_MAX, may_be_empty=True)
    verifier = SegmentVerifier(services.pool, services.registry, services.settings, services.clock)
    result = await services.heavy_reads.run(request, verifier.verify_segment(key, body.sample))
    return json_response(
        {
            "segment": key,
            "customers": result.customers,
            "stored": result.stored,
            "members": result.members,
            "differing": result.differing,
            "differences": [
                {
                    "customer": format_uuid(difference.customer),
                    "stored": _render_observed_membership(difference.stored),
                    "recomputed": _render_observed_membership(difference.recomputed),
                }
                for difference in result.differences
            ],
            "took_ms": _measure_milliseconds(started_at),
            "as_of": format_instant(result.as_of),
        }
    )


async def get_segment_health(request: Request) -> Response:
    """Analyze stored memberships. With more than 5,000 customers, overlaps are computed from a random sample."""
    services = get_services(request)
    await services.segment_usage.flush()
    now = services.clock.now()
    report = await services.heavy_reads.run(request, SegmentHealthQueries(services.pool, services.registry).report(now))
    return json_response(
        {
            "customers_total": report.customers_total,
            "customers_scanned": report.customers_scanned,
            "sampled": report.customers_scanned < report.customers_total,
            "segments": [
                {
                    **msgspec.structs.asdict(segment),
                    "last_read_at": format_instant(segment.last_read_at),
                    "last_changed_at": format_instant(segment.last_changed_at),
                }
                for segment in report.segments
            ],
            "overlaps": report.overlaps,
            "overlaps_total": report.overlaps_total,
            "near_duplicates": [overlap.segments for overlap in report.near_duplicates],
            "same_meaning": report.same_meaning,
            **{flag: [segment.key for segment in report.segments if flag in segment.flags] for flag in _FLAGS},
            "as_of": format_instant(now),
        }
    )


_FLAGS: Final = ("empty", "tiny", "never_read", "stale")

_Sample = Annotated[int, msgspec.Meta(ge=0, le=100)]


class _PreviewBody(msgspec.Struct, forbid_unknown_fields=True):
    rule: Any = msgspec.UNSET
    sample: _Sample = 10
    as_of: str | None = None
    within_ms: Annotated[int, msgspec.Meta(ge=1, le=60_000)] | None = None


class _DryRunBody(msgspec.Struct, forbid_unknown_fields=True):
    rule: Any = msgspec.UNSET
    sample: _Sample = 10


class _VerifyBody(msgspec.Struct, forbid_unknown_fields=True):
    sample: Annotated[int, msgspec.Meta(ge=1, le=1_000_000_000)] | None = None


def _parse_rule(data: Any, services: Services) -> Rule:
    """Parse a rule. Raise :class:`InvalidDefinition` if the rule could not be saved either."""
    if data is msgspec.UNSET:
        raise InvalidDefinition("/rule", "the rule is missing", "Send the rule to evaluate.")
    return parse_rule(data, "/rule", services.settings.limits)


def _create_previews(services: Services) -> RulePreviews:
    return RulePreviews(services.pool, services.registry, services.settings)


def _render_labelled_customer(customer: LabelledCustomer) -> dict[str, Any]:
    return {"id": format_uuid(customer.id), "identities": customer.identities}


def _render_membership_change(change: MembershipChange) -> dict[str, Any]:
    return {"count": change.count, "sample": [_render_labelled_customer(customer) for customer in change.sample]}


def _render_observed_membership(membership: ObservedMembership) -> dict[str, Any]:
    stays = [{"since": format_instant(entered), "left_at": format_instant(left)} for entered, left in membership.stays]
    return {"member": membership.member, "since": format_instant(membership.since), "stays": stays}


def _measure_milliseconds(started_at: float) -> int:
    return round((time.monotonic() - started_at) * 1_000)
