"""Schemas of analyses over all customers: previews, dry runs, verification, segment health."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from app.api.schemas.customers import ExplanationOut
from app.http.schema_types import (
    EXAMPLE_ID,
    EXAMPLE_INSTANT,
    CustomerId,
    IdentityOut,
    Instant,
    OptionalInstant,
    describe_schema,
)
from app.rules.language.nodes import Rule

_RULE = {"did": "Order Completed", "at_least": 2}
_NAMED = {"id": EXAMPLE_ID, "identities": [{"kind": "user_id", "value": "user-1"}]}

_Sample = Annotated[int, Field(ge=0, le=100, description="Maximum number of sample customers in the response.")]


def _describe_body(description: str, example: dict[str, Any]) -> ConfigDict:
    return ConfigDict(extra="forbid", json_schema_extra={"description": description, "examples": [example]})


class PreviewIn(BaseModel):
    model_config = _describe_body("An unsaved rule.", {"rule": _RULE, "sample": 10, "within_ms": 500})

    rule: Rule
    sample: _Sample = 10
    as_of: Instant | None = Field(None, description="Evaluate at this past instant instead of now.")
    within_ms: int | None = Field(
        None,
        ge=1,
        le=60_000,
        description="Time limit in milliseconds. If it is exceeded, the count is an estimate and the sample may be "
        "smaller.",
    )


class EvidenceOut(BaseModel):
    model_config = describe_schema(
        "A customer who matches the rule, and why.",
        {
            **_NAMED,
            "since": EXAMPLE_INSTANT,
            "valid_until": None,
            "explanation": {
                "rule": _RULE,
                "truth": True,
                "since": EXAMPLE_INSTANT,
                "valid_until": None,
                "counted": 2,
                "nodes": [],
            },
        },
    )

    id: CustomerId
    identities: list[IdentityOut]
    since: OptionalInstant
    valid_until: OptionalInstant
    explanation: ExplanationOut


class PreviewOut(BaseModel):
    model_config = describe_schema(
        "How many customers match the rule. If all were scanned, `estimate`, `low` and `high` equal the count.",
        {
            "count": None,
            "estimate": 1408,
            "low": 1391,
            "high": 1426,
            "exact": False,
            "customers_scanned": 15000,
            "customers_total": 23570,
            "sample": [],
            "took_ms": 502,
            "as_of": EXAMPLE_INSTANT,
        },
    )

    count: int | None = Field(description="null means that the count is only estimated.")
    estimate: int
    low: int = Field(description="Lower bound of the 95 % confidence interval.")
    high: int = Field(description="Upper bound of the 95 % confidence interval.")
    exact: bool
    customers_scanned: int
    customers_total: int
    sample: list[EvidenceOut]
    took_ms: int
    as_of: Instant


class DryRunIn(BaseModel):
    model_config = _describe_body("The new rule of the segment.", {"rule": _RULE, "sample": 10})

    rule: Rule
    sample: _Sample = 10


class LabelledCustomerOut(BaseModel):
    model_config = describe_schema("A customer in a sample.", _NAMED)

    id: CustomerId
    identities: list[IdentityOut]


class MembershipChangeOut(BaseModel):
    model_config = describe_schema("Number of customers, and a sample of them.", {"count": 12, "sample": [_NAMED]})

    count: int
    sample: list[LabelledCustomerOut]


class DryRunOut(BaseModel):
    model_config = describe_schema(
        "Customers who would enter, leave or stay. Nothing is saved.",
        {
            "segment": "repeat-buyers",
            "enter": {"count": 12, "sample": [_NAMED]},
            "leave": {"count": 0, "sample": []},
            "stay": {"count": 1411, "sample": [_NAMED]},
            "changes": ["segment at-risk", "journey six-stage"],
            "customers_total": 23570,
            "took_ms": 1200,
            "as_of": EXAMPLE_INSTANT,
        },
    )

    segment: str
    enter: MembershipChangeOut
    leave: MembershipChangeOut
    stay: MembershipChangeOut
    changes: list[str] = Field(description="Other definitions that depend on this segment and would change too.")
    customers_total: int
    took_ms: int
    as_of: Instant


class VerifyIn(BaseModel):
    model_config = _describe_body("The customers to verify: all, or a random sample.", {"sample": 1000})

    sample: int | None = Field(
        None, ge=1, le=1_000_000_000, description="Number of random customers to check. Default: all."
    )


class RecordedStayOut(BaseModel):
    model_config = describe_schema("An interval in the segment.", {"since": EXAMPLE_INSTANT, "left_at": None})

    since: Instant
    left_at: OptionalInstant


class RecordedMembershipOut(BaseModel):
    model_config = describe_schema(
        "The membership of a customer.",
        {"member": True, "since": EXAMPLE_INSTANT, "stays": [{"since": EXAMPLE_INSTANT, "left_at": None}]},
    )

    member: bool
    since: Instant
    stays: list[RecordedStayOut]


class DifferenceOut(BaseModel):
    model_config = describe_schema(
        "A customer whose stored membership differs from a replay of the log.",
        {
            "customer": EXAMPLE_ID,
            "stored": {"member": False, "since": EXAMPLE_INSTANT, "stays": []},
            "recomputed": {"member": True, "since": EXAMPLE_INSTANT, "stays": []},
        },
    )

    customer: CustomerId
    stored: RecordedMembershipOut
    recomputed: RecordedMembershipOut


class VerifiedOut(BaseModel):
    model_config = describe_schema(
        "Result of comparing a segment with the log.",
        {
            "segment": "repeat-buyers",
            "customers": 23570,
            "stored": 23570,
            "members": 1411,
            "differing": 0,
            "differences": [],
            "took_ms": 4100,
            "as_of": EXAMPLE_INSTANT,
        },
    )

    segment: str
    customers: int = Field(description="Number of compared customers.")
    stored: int = Field(
        description="Customers with a stored membership; for the others, membership is computed on each read."
    )
    members: int = Field(description="Members according to the log.")
    differing: int = Field(
        description="Number of differences; expected: 0. Without `sample`, stored intervals of customers that do not "
        "exist count too."
    )
    differences: list[DifferenceOut] = Field(max_length=20)
    took_ms: int
    as_of: Instant = Field(description="Instant at which the verification started.")


class SegmentHealthOut(BaseModel):
    model_config = describe_schema(
        "Usage and size of one segment.",
        {
            "key": "repeat-buyers",
            "members": 1411,
            "reads": 12,
            "last_read_at": EXAMPLE_INSTANT,
            "last_changed_at": EXAMPLE_INSTANT,
            "filled": True,
            "flags": [],
        },
    )

    key: str
    members: int
    reads: int = Field(description="Number of times that the member list or the count was read.")
    last_read_at: OptionalInstant
    last_changed_at: OptionalInstant = Field(description="Last time a customer entered or left.")
    filled: bool = Field(
        description="false means that the backfill is not complete: the figures are partial, and `flags` is empty."
    )
    flags: list[str]


class OverlapOut(BaseModel):
    model_config = describe_schema(
        "Two segments with common members.",
        {"segments": ["engaged", "repeat-buyers"], "both": 700, "either": 2100, "jaccard": 0.3333},
    )

    segments: list[str] = Field(min_length=2, max_length=2)
    both: int
    either: int
    jaccard: float = Field(description="Jaccard index: common members divided by members of either segment.")


class SegmentHealthReportOut(BaseModel):
    model_config = describe_schema(
        "Report on all segments, computed from stored memberships.",
        {
            "customers_total": 23570,
            "customers_scanned": 23570,
            "sampled": False,
            "segments": [],
            "overlaps": [{"segments": ["a", "b"], "both": 98, "either": 100, "jaccard": 0.98}],
            "overlaps_total": 1,
            "near_duplicates": [["a", "b"]],
            "same_meaning": [["a", "b"]],
            "empty": [],
            "tiny": [],
            "never_read": [],
            "stale": [],
            "as_of": EXAMPLE_INSTANT,
        },
    )

    customers_total: int
    customers_scanned: int
    sampled: bool = Field(description="Whether overlaps were computed from a random sample of customers.")
    segments: list[SegmentHealthOut]
    overlaps: list[OverlapOut] = Field(
        max_length=1000, description="Pairs with common members, the most similar first."
    )
    overlaps_total: int = Field(description="Total number of pairs with common members.")
    near_duplicates: list[list[str]] = Field(description="Pairs with a Jaccard index of at least 0.95.")
    same_meaning: list[list[str]] = Field(description="Groups of segments with equivalent rules.")
    empty: list[str] = Field(description="Segments without members.")
    tiny: list[str] = Field(description="Segments with fewer than 10 members or less than 0.1 % of all customers.")
    never_read: list[str] = Field(description="Segments that are at least 90 days old and were never read.")
    stale: list[str] = Field(description="Segments that are at least 90 days old and unchanged for 90 days.")
    as_of: Instant
