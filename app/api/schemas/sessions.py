"""Schemas of a customer's sessions."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from app.http.schema_types import EXAMPLE_ID, EXAMPLE_INSTANT, CustomerId, Instant, OptionalInstant, describe_schema

_PAGE = {"url": "https://shop.example.com/hats", "path": "/hats", "title": "Hats", "name": None}
_SESSION = {
    "started_at": EXAMPLE_INSTANT,
    "ended_at": EXAMPLE_INSTANT,
    "duration_seconds": 84.5,
    "open": False,
    "begun_by": "campaign",
    "message_id": "m-1",
    "source": "default",
    "pages": 2,
    "touchpoints": 5,
    "bounced": False,
    "channel": "ads",
    "acquisition": {
        "group": "Paid Search",
        "source": "google",
        "medium": "cpc",
        "campaign": "spring",
        "term": None,
        "content": None,
        "click_id": "gclid",
    },
    "entry_page": _PAGE,
    "exit_page": {**_PAGE, "url": "https://shop.example.com/cart", "path": "/cart", "title": "Cart"},
    "devices": [{"type": "mobile", "os": "iOS", "browser": "Safari"}],
    "session_ids": ["1767268800000"],
}
_TOTALS = {"count": 1, "bounce_rate": 0.0, "average_duration_seconds": 84.5, "pages_per_session": 2.0}


class SessionPageOut(BaseModel):
    model_config = describe_schema(
        "A page, or a screen of an app with its name. Texts are truncated to 1,000 characters.", _PAGE
    )

    url: str | None
    path: str | None
    title: str | None
    name: str | None


class AcquisitionOut(BaseModel):
    model_config = describe_schema(
        "Where a visitor came from, derived from the URL and the referrer of the page.",
        {
            "group": "Paid Search",
            "source": "google",
            "medium": "cpc",
            "campaign": "spring",
            "term": None,
            "content": None,
            "click_id": "gclid",
        },
    )

    group: str | None = Field(description="Default channel group, such as Organic Search or Direct.")
    source: str | None
    medium: str | None
    campaign: str | None
    term: str | None
    content: str | None
    click_id: str | None = Field(description="Name of the click id in the URL, such as gclid.")


class SessionDeviceOut(BaseModel):
    model_config = describe_schema(
        "A device that was used in the session.", {"type": "mobile", "os": "iOS", "browser": "Safari"}
    )

    type: str | None
    os: str | None
    browser: str | None


class SessionOut(BaseModel):
    model_config = describe_schema("A session: continuous activity across all tabs and devices.", _SESSION)

    started_at: Instant
    ended_at: Instant = Field(description="Instant of the last touchpoint.")
    duration_seconds: float
    open: bool = Field(
        description="true means that the last touchpoint is less than 30 minutes old, so the session may continue."
    )
    begun_by: Literal["first", "pause", "campaign"] = Field(description="Why a new session started.")
    message_id: str = Field(description="Message id of the first touchpoint.")
    source: str
    pages: int = Field(description="Number of page and screen views.")
    touchpoints: int
    bounced: bool = Field(
        description="true means that the session has at most one touchpoint, not counting automatic ones."
    )
    channel: str = Field(
        description="Channel of the touchpoint that determined the acquisition, or else of the first touchpoint."
    )
    acquisition: AcquisitionOut | None = Field(
        description="null means that no page view shows where the visitor came from, for example after a pause "
        "within the site."
    )
    entry_page: SessionPageOut | None
    exit_page: SessionPageOut | None
    devices: list[SessionDeviceOut]
    session_ids: list[str] = Field(description="Values of context.sessionId that clients sent.")


class SessionTotalsOut(BaseModel):
    model_config = describe_schema(
        "Totals over all sessions, including open ones. Rates and averages are null if there are no sessions.", _TOTALS
    )

    count: int
    bounce_rate: float | None
    average_duration_seconds: float | None
    pages_per_session: float | None


class SessionsOut(BaseModel):
    model_config = describe_schema(
        "Sessions of a customer, newest first.",
        {
            "id": EXAMPLE_ID,
            "totals": _TOTALS,
            "items": [_SESSION],
            "since": None,
            "next_cursor": None,
            "as_of": EXAMPLE_INSTANT,
        },
    )

    id: CustomerId
    totals: SessionTotalsOut
    items: list[SessionOut]
    since: OptionalInstant = Field(
        description="Start of the evaluated history if it was cut at the latest 50,000 touchpoints; null means that "
        "it is complete."
    )
    next_cursor: str | None
    as_of: Instant
