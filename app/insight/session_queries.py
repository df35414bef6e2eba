"""Sessions of a customer, computed from the log for each request."""

from __future__ import annotations

from collections import deque
from typing import Any, Final

import msgspec

from app.enrichment.urls import find_parameters, query_of
from app.insight.sessions import (
    Acquisition,
    Device,
    PageView,
    Session,
    SessionEvent,
    SessionSplitter,
    SessionTotals,
    is_visit,
)
from app.postgres.pool import Pool, snapshot
from app.queries.timeline import TimelinePlace, find_customer_id

TOUCHPOINTS_MAX: Final = 50_000
"""Maximum number of touchpoints that are read for one customer: the latest. Sessions before them are not returned."""

TEXT_CHARS_MAX: Final = 1_000
"""Maximum length, in characters, of each text of a page, campaign or device in the response. A client may send texts of
up to 32 KB."""

_CHUNK_ROWS: Final = 500
"""Number of rows in memory at a time. Other requests run between two chunks."""

_TOUCHPOINTS = """
-- The latest touchpoints up to an instant, oldest first, over all identities; index touchpoints_of_identity. A value of
-- an unexpected type becomes null or JSON text.
SELECT occurred_at, message_id, source, type, name, channel, library,
       acquisition_group, acquisition_source, acquisition_medium, acquisition_campaign, acquisition_term,
       acquisition_content, acquisition_click_id, url, path, title, page_name, device, os, browser, session_id
FROM (
    SELECT t.occurred_at, t.message_id, t.source, t.type, t.name, t.channel,
           t.context -> 'library' ->> 'name' AS library,
           a ->> 'group' AS acquisition_group, a ->> 'source' AS acquisition_source,
           a ->> 'medium' AS acquisition_medium, a ->> 'campaign' AS acquisition_campaign,
           a ->> 'term' AS acquisition_term, a ->> 'content' AS acquisition_content,
           a ->> 'click_id' AS acquisition_click_id,
           coalesce(t.properties ->> 'url', t.context -> 'page' ->> 'url') AS url,
           coalesce(t.properties ->> 'path', t.context -> 'page' ->> 'path') AS path,
           coalesce(t.properties ->> 'title', t.context -> 'page' ->> 'title') AS title,
           t.properties ->> 'name' AS page_name,
           coalesce(t.context -> 'client' ->> 'device', t.context -> 'device' ->> 'type') AS device,
           coalesce(t.context -> 'client' ->> 'os', t.context -> 'os' ->> 'name') AS os,
           t.context -> 'client' ->> 'browser' AS browser,
           t.context ->> 'sessionId' AS session_id
    FROM identities i
    JOIN touchpoints t ON t.identity_id = i.id
    CROSS JOIN LATERAL (SELECT t.context -> 'acquisition' AS a) AS acquisition
    WHERE i.customer_id = $1 AND t.name IS NOT NULL AND t.occurred_at <= $2
    ORDER BY t.occurred_at DESC, t.message_id COLLATE "C" DESC, t.source COLLATE "C" DESC
    LIMIT $3
) AS latest
ORDER BY occurred_at, message_id COLLATE "C", source COLLATE "C"
"""


class SessionList(msgspec.Struct):
    """Sessions, newest first, with totals of all sessions. If ``since`` is set, older touchpoints were not read."""

    customer: bytes
    sessions: list[Session]
    totals: SessionTotals
    since: int | None


class SessionQueries:
    def __init__(self, pool: Pool, touchpoints_max: int = TOUCHPOINTS_MAX) -> None:
        self._pool = pool
        self._touchpoints_max = touchpoints_max

    async def list_sessions(
        self, ids: list[bytes], now: int, before: TimelinePlace | None, items_max: int
    ) -> SessionList:
        """Return up to ``items_max`` sessions that began before the place ``before``, as of ``now``.

        Only these sessions are in memory, even for a long history. Raise :class:`NotFound` if no identity has a
        customer.
        """
        splitter, totals = SessionSplitter(), SessionTotals()
        newest: deque[Session] = deque(maxlen=items_max)
        rows, since = 0, None

        def add_session(session: Session | None) -> None:
            if session is None:
                return
            totals.add(session)
            if before is None or session.first < before:
                newest.append(session)

        async with snapshot(self._pool) as connection:
            customer = await find_customer_id(connection, ids)
            arguments = customer, now, self._touchpoints_max
            async for row in connection.cursor(_TOUCHPOINTS, *arguments, prefetch=_CHUNK_ROWS):
                since = row["occurred_at"] if rows == 0 else since
                rows += 1
                if (touchpoint := _session_event_from_row(row)) is not None:
                    add_session(splitter.add(touchpoint))
        add_session(splitter.finish())
        return SessionList(customer, [*reversed(newest)], totals, since if rows == self._touchpoints_max else None)


def _session_event_from_row(row: Any) -> SessionEvent | None:
    """Convert a row; return None if the touchpoint is not part of a visit."""
    occurred_at, message_id, source, type, name, channel, library, *texts = row
    if not is_visit(type, channel, library):
        return None
    click_value = _click_id_value(click_id=texts[6], url=texts[7])
    texts = [text and text[:TEXT_CHARS_MAX] for text in texts]
    acquisition, page, device, session_id = texts[:7], texts[7:11], texts[11:14], texts[14]
    return SessionEvent(
        order=(occurred_at, message_id, source),
        name=name,
        channel=channel,
        page=PageView(*page) if type in ("page", "screen") else None,
        acquisition=Acquisition(*acquisition) if any(acquisition) else None,
        device=Device(*device) if any(device) else None,
        session_id=session_id,
        click=click_value,
    )


def _click_id_value(*, click_id: str | None, url: str | None) -> str | None:
    """Return the value of a click id, which only the page's URL contains."""
    if click_id is None or url is None:
        return None
    name = click_id.lower()  # Names of URL parameters are compared in lower case.
    return find_parameters(query_of(url), {name}).get(name)
