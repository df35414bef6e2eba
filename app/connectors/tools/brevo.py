"""Brevo (formerly Sendinblue) connector: webhooks of transactional emails, campaigns and contacts.

A body is one JSON object, or an array if batching is on. Events have no id (``id`` is the webhook's id), and only the
epoch timestamps are in UTC. Requests are not signed: they are authenticated with a token.

Source: https://developers.brevo.com/docs/transactional-webhooks and
https://developers.brevo.com/docs/marketing-webhooks
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from app.connectors.adapter import Call, Connector, Erasure, Event, derive_event_id
from app.connectors.shared.email import CHANNEL, build_click_properties, find_custom_ids, parse_list, parse_object
from app.connectors.signatures import TOKEN
from app.connectors.webhook_request import Unreadable
from app.enrichment.channel import lower_snake
from app.formats.event_names import vendor_event_name

_NAMES: Final = {
    "request": "email.sent",
    "sent": "email.sent",
    "delivered": "email.delivered",
    "deferred": "email.deferred",
    "hard_bounce": "email.bounced",
    "soft_bounce": "email.bounced",
    "invalid_email": "email.bounced",
    "invalid": "email.bounced",
    "blocked": "email.dropped",
    "error": "email.failed",
    "opened": "email.opened",
    "unique_opened": "email.opened",
    "first_opening": "email.opened",
    "proxy_open": "email.opened",
    "unique_proxy_open": "email.opened",
    "click": "email.clicked",
    "clicked": "email.clicked",
    "spam": "email.complained",
    "complaint": "email.complained",
    "unsubscribe": "email.unsubscribed",
    "unsubscribed": "email.unsubscribed",
    "list_addition": "email.subscribed",
}
_TIMES: Final = ("ts_epoch", "ts_event", "ts")
_SAME_EVENT: Final = {
    "unique_opened": "opened",
    "first_opening": "opened",
    "unique_proxy_open": "proxy_open",
}
"""Aliases of event names. If a webhook has both events, Brevo reports the first open under both names."""
_PREFETCHED: Final = frozenset({"proxy_open", "unique_proxy_open"})


def map_event(event: Event, received_at: int) -> Iterable[Call | Erasure]:
    """Yield one call for each address; an event about contacts may contain several."""
    del received_at
    if not isinstance(event.get("event"), str) or not event["event"]:
        raise Unreadable("an event needs the field `event`")
    kind = lower_snake(event["event"])
    name = _NAMES.get(kind) or vendor_event_name("brevo", event["event"])
    occurred_at = next((event[name] for name in _TIMES if event.get(name)), None)
    metadata = parse_object(event.get("X-Mailin-custom"))
    properties = _build_properties(kind, event) | {"metadata": metadata}
    machine = kind in _PREFETCHED
    for email in parse_list(event.get("email")) or [None]:
        yield Call(
            id=derive_event_id(
                _SAME_EVENT.get(kind, kind),
                email,
                occurred_at,
                properties["email_id"],
                properties["campaign_id"],
                properties["link"],
            ),
            occurred_at=occurred_at,
            event=name,
            channel=CHANNEL,
            email=email,
            **find_custom_ids(metadata),
            properties=properties | build_click_properties(name, event.get("user_agent"), machine),
        )


def _build_properties(kind: str, event: Event) -> dict[str, Any]:
    return {
        "link": event.get("link") or event.get("URL") or event.get("url"),
        "campaign": event.get("campaign name"),
        "campaign_id": event.get("camp_id"),
        "tags": parse_list(event.get("tags") or event.get("tag")),
        "email_id": event.get("message-id"),
        "subject": event.get("subject"),
        "template_id": event.get("template_id"),
        "bounce_type": kind.removesuffix("_bounce") if kind.endswith("_bounce") else None,
        "reason": event.get("reason"),
        "list_ids": parse_list(event.get("list_id")),
    }


CONNECTOR: Final = Connector(
    key="brevo",
    name="Brevo",
    family="email",
    scheme=TOKEN,
    map_event=map_event,
    steps=(
        "Generate a token for this source. Brevo does not sign its webhooks, so each request must carry the token.",
        "In Brevo open Settings, Webhooks, and add a transactional webhook with the URL {url}?token=TOKEN. A Bearer"
        " token or the password of Basic auth works too. Add a marketing webhook in the same way.",
        "Select the events to send. Opens by a privacy proxy are marked as opens of a machine.",
        "In your emails, add user_id as JSON to the header X-Mailin-custom, so that clicks are linked to the user.",
    ),
    sample=b'{"event":"click","email":"user@example.com","id":26224,"date":"2026-05-04 12:00:00","ts":1777888800,'
    b'"message-id":"<202605041000.1@smtp-relay.example.com>","ts_event":1777888800,"subject":"News",'
    b'"X-Mailin-custom":"{\\"user_id\\":\\"user-1\\"}","template_id":22,"tag":"[\\"news\\"]","tags":["news"],'
    b'"link":"https://example.com/p","ts_epoch":1777888800123}',
)
