"""The shapes of requests and answers as they are published.

Answers are encoded by hand on the way out; these models are their contract in the OpenAPI document, and what
generated clients read.
"""

from __future__ import annotations

from pydantic import BaseModel

from app.api.schemas.access import KeyIn, KeyOut, KeysOut, SourceIn, SourceOut, SourcesOut
from app.api.schemas.collecting import (
    BatchIn,
    BatchItemIn,
    CallIn,
    ReceiptOut,
    RejectionOut,
    SettingsOut,
    SuccessOut,
    WarningOut,
)
from app.api.schemas.common import PROBLEMS_OF_COLLECTING, IdentityOut, Problem, json_body, problems
from app.api.schemas.customers import (
    CauseOut,
    CustomerOut,
    ExplanationOut,
    FoundOut,
    HistoryOut,
    JourneyExplanationOut,
    LinkIn,
    LinkOut,
    LinksOut,
    LookupIn,
    LookupOut,
    MembershipOut,
    SegmentExplanationOut,
    SegmentsOfCustomerOut,
    SegmentStayOut,
    StageExplanationOut,
    StandingOut,
    StayOut,
    TimelineOut,
    TouchpointOut,
)
from app.api.schemas.definitions import (
    CountOut,
    FillOut,
    JourneyOut,
    JourneysOut,
    MemberOut,
    MembersOut,
    SegmentOut,
    SegmentsOut,
    StageOut,
)
from app.api.schemas.operations import HealthOut, LiveOut, QuarantinedOut, QuarantineOut
from app.rules.language import JourneyIn, SegmentIn

REQUEST_MODELS: tuple[type[BaseModel], ...] = (
    CallIn, BatchIn, SegmentIn, JourneyIn, SourceIn, KeyIn, LinkIn, LookupIn, BatchItemIn,
)  # fmt: skip
"""Bodies are read by hand, so the document is told of them by hand."""


__all__ = [
    "PROBLEMS_OF_COLLECTING",
    "REQUEST_MODELS",
    "BatchIn",
    "BatchItemIn",
    "CallIn",
    "CauseOut",
    "CountOut",
    "CustomerOut",
    "ExplanationOut",
    "FillOut",
    "FoundOut",
    "HealthOut",
    "HistoryOut",
    "IdentityOut",
    "JourneyExplanationOut",
    "JourneyIn",
    "JourneyOut",
    "JourneysOut",
    "KeyIn",
    "KeyOut",
    "KeysOut",
    "LinkIn",
    "LinkOut",
    "LinksOut",
    "LiveOut",
    "LookupIn",
    "LookupOut",
    "MemberOut",
    "MembersOut",
    "MembershipOut",
    "Problem",
    "QuarantineOut",
    "QuarantinedOut",
    "ReceiptOut",
    "RejectionOut",
    "SegmentExplanationOut",
    "SegmentIn",
    "SegmentOut",
    "SegmentStayOut",
    "SegmentsOfCustomerOut",
    "SegmentsOut",
    "SettingsOut",
    "SourceIn",
    "SourceOut",
    "SourcesOut",
    "StageExplanationOut",
    "StageOut",
    "StandingOut",
    "StayOut",
    "SuccessOut",
    "TimelineOut",
    "TouchpointOut",
    "WarningOut",
    "json_body",
    "problems",
]
