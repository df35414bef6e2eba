"""What is said of a customer's sessions."""

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
        "A page; of a screen of an app the name is known. Texts are cut at 1,000 characters.", _PAGE
    )

    url: str | None
    path: str | None
    title: str | None
    name: str | None


class AcquisitionOut(BaseModel):
    model_config = describe_schema(
        "Where a visitor came from, as the server read it from the page's address and referrer.",
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

    group: str | None = Field(description="A default channel group, such as Organic Search or Direct.")
    source: str | None
    medium: str | None
    campaign: str | None
    term: str | None
    content: str | None
    click_id: str | None = Field(description="Name of the click id that there was, such as gclid.")


class SessionDeviceOut(BaseModel):
    model_config = describe_schema("A device that took part.", {"type": "mobile", "os": "iOS", "browser": "Safari"})

    type: str | None
    os: str | None
    browser: str | None


class SessionOut(BaseModel):
    model_config = describe_schema("One stretch of activity, over all tabs and devices.", _SESSION)

    started_at: Instant
    ended_at: Instant = Field(description="When its last touchpoint occurred.")
    duration_seconds: float
    open: bool = Field(description="true: less than 30 minutes have passed, and it may go on.")
    begun_by: Literal["first", "pause", "campaign"] = Field(description="Why it is not part of the one before.")
    message_id: str = Field(description="Of its first touchpoint.")
    source: str
    pages: int = Field(description="Views of pages and screens.")
    touchpoints: int
    bounced: bool = Field(description="One touchpoint at most, but for what a page sends by itself.")
    channel: str = Field(description="Of the touchpoint that acquisition is from, else of the first.")
    acquisition: AcquisitionOut | None = Field(description="null: nothing said where from, as within a site.")
    entry_page: SessionPageOut | None
    exit_page: SessionPageOut | None
    devices: list[SessionDeviceOut]
    session_ids: list[str] = Field(description="context.sessionId of the clients.")


class SessionTotalsOut(BaseModel):
    model_config = describe_schema("Figures over all sessions, open ones too; null where there is none.", _TOTALS)

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
        description="Only the latest 50,000 touchpoints were looked at, which begin here; null: all of them were."
    )
    next_cursor: str | None
    as_of: Instant
