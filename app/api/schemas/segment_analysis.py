"""Questions about the whole base."""

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

_Sample = Annotated[int, Field(ge=0, le=100, description="Customers shown, at most.")]


def _describe_body(description: str, example: dict[str, Any]) -> ConfigDict:
    return ConfigDict(extra="forbid", json_schema_extra={"description": description, "examples": [example]})


class PreviewIn(BaseModel):
    model_config = _describe_body("A rule that is not saved.", {"rule": _RULE, "sample": 10, "within_ms": 500})

    rule: Rule
    sample: _Sample = 10
    as_of: Instant | None = Field(None, description="An instant of the past instead of now.")
    within_ms: int | None = Field(
        None,
        ge=1,
        le=60_000,
        description="Estimate the count in about that many milliseconds, if need be; the sample may then be shorter.",
    )


class EvidenceOut(BaseModel):
    model_config = describe_schema(
        "A customer of whom the rule is true, and why.",
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
        "What the rule says of the base. Where everybody was looked at, estimate, low and high are the count.",
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

    count: int | None = Field(description="null: only estimated.")
    estimate: int
    low: int = Field(description="Lower end of the 95 % interval.")
    high: int = Field(description="Upper end of the 95 % interval.")
    exact: bool
    customers_scanned: int
    customers_total: int
    sample: list[EvidenceOut]
    took_ms: int
    as_of: Instant


class DryRunIn(BaseModel):
    model_config = _describe_body("The rule that the segment would have.", {"rule": _RULE, "sample": 10})

    rule: Rule
    sample: _Sample = 10


class LabelledCustomerOut(BaseModel):
    model_config = describe_schema("A customer of a sample.", _NAMED)

    id: CustomerId
    identities: list[IdentityOut]


class MembershipChangeOut(BaseModel):
    model_config = describe_schema("How many customers, and some of them.", {"count": 12, "sample": [_NAMED]})

    count: int
    sample: list[LabelledCustomerOut]


class DryRunOut(BaseModel):
    model_config = describe_schema(
        "What the change would move. Nothing was saved.",
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
    changes: list[str] = Field(description="Other definitions that would change with it, as they read it.")
    customers_total: int
    took_ms: int
    as_of: Instant


class VerifyIn(BaseModel):
    model_config = _describe_body("How many to look at.", {"sample": 1000})

    sample: int | None = Field(None, ge=1, le=1_000_000_000, description="That many random customers instead of all.")


class RecordedStayOut(BaseModel):
    model_config = describe_schema("A stay in the segment.", {"since": EXAMPLE_INSTANT, "left_at": None})

    since: Instant
    left_at: OptionalInstant


class RecordedMembershipOut(BaseModel):
    model_config = describe_schema(
        "What is said of a customer.",
        {"member": True, "since": EXAMPLE_INSTANT, "stays": [{"since": EXAMPLE_INSTANT, "left_at": None}]},
    )

    member: bool
    since: Instant
    stays: list[RecordedStayOut]


class DifferenceOut(BaseModel):
    model_config = describe_schema(
        "A customer whose stored answer is not what its log says.",
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
        "The segment recomputed from the log.",
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
    customers: int = Field(description="Compared.")
    stored: int = Field(description="Of these, with a stored answer; the others are worked out whenever asked.")
    members: int = Field(description="Recomputed.")
    differing: int = Field(
        description="Must be 0. Without a sample, stays that are stored of customers who do not exist count too."
    )
    differences: list[DifferenceOut] = Field(max_length=20)
    took_ms: int
    as_of: Instant = Field(description="When it began.")


class SegmentHealthOut(BaseModel):
    model_config = describe_schema(
        "One segment.",
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
    reads: int = Field(description="Of its members and its count.")
    last_read_at: OptionalInstant
    last_changed_at: OptionalInstant = Field(description="When a customer last entered or left.")
    filled: bool = Field(description="false: the figures are those of a part of the customers, and there are no flags.")
    flags: list[str]


class OverlapOut(BaseModel):
    model_config = describe_schema(
        "Two segments with members in common.",
        {"segments": ["engaged", "repeat-buyers"], "both": 700, "either": 2100, "jaccard": 0.3333},
    )

    segments: list[str] = Field(min_length=2, max_length=2)
    both: int
    either: int
    jaccard: float = Field(description="both / either.")


class SegmentHealthReportOut(BaseModel):
    model_config = describe_schema(
        "All segments at a glance, from what is stored.",
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
    sampled: bool = Field(description="The overlaps are those of a random part of the base.")
    segments: list[SegmentHealthOut]
    overlaps: list[OverlapOut] = Field(
        max_length=1000, description="Pairs with members in common, the most alike first."
    )
    overlaps_total: int = Field(description="How many such pairs there are.")
    near_duplicates: list[list[str]] = Field(description="Those of the overlaps with a jaccard of at least 0.95.")
    same_meaning: list[list[str]] = Field(description="Segments whose rules mean the same.")
    empty: list[str] = Field(description="Without a member.")
    tiny: list[str] = Field(description="With fewer than 10 members, or less than 0.1 % of all customers.")
    never_read: list[str] = Field(description="90 days old, and nobody asked for its members or count yet.")
    stale: list[str] = Field(description="90 days old, and nobody entered or left it for 90 days.")
    as_of: Instant
