"""Fixtures of the Mailchimp connectors: audience forms with a token, transactional forms with an HMAC-SHA1."""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import b64encode
from urllib.parse import parse_qsl, urlencode

from app.connectors.tools.mailchimp import CONNECTORS
from tests.support.tool_fixture import Case, Fixture, SignedWith, Touchpoint

_SAMPLES = {tool.key: tool.sample for tool in CONNECTORS}
_FORM = {"content-type": "application/x-www-form-urlencoded"}
_WHO = "email:user@example.com"
_AT = "2026-05-04T10:00:00Z"
_FIREFOX = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) Firefox/128.0"


def with_token(body: bytes, secret: str, now: int, url: str) -> SignedWith:
    del body, now, url
    return {}, {"token": secret}


def _audience(kind: str, fired_at: str = "2026-05-04 10:00:00", **data: str) -> bytes:
    fields = {"type": kind, "fired_at": fired_at, "data[id]": "8a25ff1d98", "data[list_id]": "a6b5da1054"}
    fields |= {"data[email]": "user@example.com"} | {f"data[{name}]": value for name, value in data.items()}
    return urlencode(fields).encode()


def _merges(**values: str) -> dict[str, str]:
    return {f"merges][{name}": value for name, value in values.items()}


def _one(about: str, name: str, body: bytes, properties: dict[str, object] | None = None, at: str = _AT) -> Case:
    return Case(about, body, _WHO, (Touchpoint(name, "email", at, properties or {}),), headers=_FORM)


_MEMBER = "mailchimp_member:8a25ff1d98"

_AUDIENCE = Fixture(
    kind="mailchimp",
    secret="",
    sign=with_token,
    covers_body=False,
    sample=Case(
        "unsubscribed",
        _SAMPLES["mailchimp"],
        _WHO,
        (
            Touchpoint(
                "email.unsubscribed",
                "email",
                _AT,
                {"list_id": "a6b5da1054", "campaign_id": "cb398d21d2", "reason": "manual", "action": "unsub"},
            ),
        ),
        identities=(_WHO, _MEMBER),
        headers=_FORM,
    ),
    several=Case(
        "subscribed, with merge fields",
        _audience("subscribe", **_merges(EMAIL="user@example.com", FNAME="User", LNAME="", SHOE_SIZE="43")),
        _WHO,
        (Touchpoint("email.subscribed", "email", _AT, {"list_id": "a6b5da1054"}),),
        traits={"first_name": "User", "shoe_size": "43", "last_name": None},
        identities=(_WHO, _MEMBER),
        accepted=2,
        headers=_FORM,
    ),
    unknown=_one("an unknown type", "mailchimp.teleported", _audience("teleported")),
    non_ascii=Case(
        "a profile in Greek",
        _audience("profile", **_merges(FNAME="Ελένη")),
        _WHO,
        traits={"first_name": "Ελένη"},
        accepted=1,
        headers=_FORM,
    ),
    times=(
        _one("ISO 8601", "email.bounced", _audience("cleaned", "2026-05-04T10:00:00")),
        _one("an invalid time", "email.bounced", _audience("cleaned", "yesterday"), at="2026-05-05T12:00:00Z"),
    ),
    malformed=Case("no data", b"type=subscribe&fired_at=2026-05-04+10%3A00%3A00", rejected=1, headers=_FORM),
    others=(
        Case("not a form", b"hello", rejected=1, headers=_FORM),
        Case("conflicting field names", b"type=subscribe&data=1&data%5Bid%5D=2", rejected=1, headers=_FORM),
        _one("cleaned after a bounce", "email.bounced", _audience("cleaned", reason="hard"), {"reason": "hard"}),
        _one("cleaned after a complaint", "email.complained", _audience("cleaned", reason="abuse")),
        Case(
            "a campaign event, which concerns no person", _audience("campaign", status="sent"), ignored=1, headers=_FORM
        ),
        Case(
            "a changed address",
            _audience(
                "upemail", new_id="51da8c3259", old_email="user@example.com", new_email="new@example.com", email=""
            ),
            "email:new@example.com",
            identities=(_WHO, "email:new@example.com", "mailchimp_member:51da8c3259"),
            accepted=1,
            headers=_FORM,
        ),
    ),
)


def signed(body: bytes, secret: str, now: int, url: str) -> SignedWith:
    del now
    fields = dict(parse_qsl(body.decode(), keep_blank_values=True))
    text = url + "".join(name + fields[name] for name in sorted(fields))
    mac = hmac.new(secret.encode(), text.encode(), hashlib.sha1).digest()
    return {"X-Mandrill-Signature": b64encode(mac).decode()}, {}


def _mails(*events: object) -> bytes:
    return urlencode({"mandrill_events": json.dumps(events, ensure_ascii=False)}).encode()


def _mail(kind: str, ts: object = 1777888800, message: dict[str, object] | None = None, **more: object) -> object:
    members = {
        "ts": 1777888700,
        "_id": "m-1",
        "_version": "v1",
        "email": "user@example.com",
        "sender": "shop@example.com",
        "subject": "Spring",
        "tags": ["news"],
        "metadata": {"user_id": "user-1"},
        "opens": [],
        "clicks": [],
        "state": "sent",
    }
    return {"event": kind, "_id": "m-1", "ts": ts, "msg": members | (message or {}), **more}


def _seconds(name: str, n: int, properties: dict[str, object] | None = None) -> Touchpoint:
    return Touchpoint(name, "email", f"2026-05-04T10:00:{n:02}Z", properties or {})


_TRANSACTIONAL = Fixture(
    kind="mandrill",
    secret="key-of-the-webhook",
    sign=signed,
    sample=Case(
        "a click",
        _SAMPLES["mandrill"],
        _WHO,
        (
            _seconds(
                "email.clicked",
                0,
                {"link": "https://example.com/p", "tags": ["news"], "email_id": "m-1", "subject": "News"},
            ),
        ),
        identities=(_WHO, "user_id:user-1"),
        headers=_FORM,
    ),
    several=Case(
        "every event type, in one field",
        _mails(
            _mail("send", 1777888800),
            _mail("delivered", 1777888801),
            _mail("deferral", 1777888802),
            _mail("hard_bounce", 1777888803, {"bounce_description": "bad_mailbox", "diag": "smtp;550 5.1.1"}),
            _mail("soft_bounce", 1777888804),
            _mail("reject", 1777888805),
            _mail("open", 1777888806, user_agent=_FIREFOX),
            _mail("open", 1777888807, user_agent="Mozilla/5.0"),
            _mail("spam", 1777888808),
            _mail("unsub", 1777888809),
        ),
        _WHO,
        (
            _seconds("email.sent", 0, {"subject": "Spring", "metadata": {"user_id": "user-1"}}),
            _seconds("email.delivered", 1),
            _seconds("email.deferred", 2),
            _seconds("email.bounced", 3, {"bounce_type": "hard", "reason": "bad_mailbox", "details": "smtp;550 5.1.1"}),
            _seconds("email.bounced", 4, {"bounce_type": "soft"}),
            _seconds("email.dropped", 5),
            _seconds("email.opened", 6, {"machine": False}),
            _seconds("email.opened", 7, {"machine": True}),
            _seconds("email.complained", 8),
            _seconds("email.unsubscribed", 9),
        ),
        headers=_FORM,
    ),
    unknown=Case(
        "an unknown event type",
        _mails(_mail("teleported")),
        _WHO,
        (_seconds("mandrill.teleported", 0),),
        headers=_FORM,
    ),
    non_ascii=Case(
        "a subject in Greek",
        _mails(_mail("send", message={"subject": "καλημέρα"})),
        _WHO,
        (_seconds("email.sent", 0, {"subject": "καλημέρα"}),),
        headers=_FORM,
    ),
    times=(
        Case(
            "text, a fraction and an invalid time",
            _mails(_mail("send", "1777888800"), _mail("send", 1777888801.5), _mail("send", "yesterday")),
            _WHO,
            (
                _seconds("email.sent", 0),
                Touchpoint("email.sent", "email", "2026-05-04T10:00:01.5Z"),
                Touchpoint("email.sent", "email", "2026-05-05T12:00:00Z"),
            ),
            headers=_FORM,
        ),
    ),
    malformed=Case(
        "two invalid events and a valid one",
        _mails(_mail("send"), {"ts": 1777888800}, 7),
        _WHO,
        (_seconds("email.sent", 0),),
        rejected=2,
        headers=_FORM,
    ),
    others=(
        Case("no JSON in mandrill_events", urlencode({"mandrill_events": "no"}).encode(), rejected=1, headers=_FORM),
        Case("no field mandrill_events", b"other=1", rejected=1, headers=_FORM),
        Case("no array in mandrill_events", urlencode({"mandrill_events": "{}"}).encode(), rejected=1, headers=_FORM),
        Case(
            "an address on the deny list",
            _mails(
                {
                    "type": "blacklist",
                    "action": "add",
                    "ts": 1777888800,
                    "reject": {"email": "user@example.com", "reason": "manual edit"},
                }
            ),
            _WHO,
            (_seconds("mandrill.blacklist_add", 0, {"reason": "manual edit"}),),
            headers=_FORM,
        ),
        Case(
            "an inbound e-mail",
            _mails(
                {
                    "event": "inbound",
                    "ts": 1777888800,
                    "msg": {
                        "from_email": "user@example.com",
                        "email": "shop@example.com",
                        "subject": "Where is it?",
                        "text": "I have waited for a week.",
                    },
                }
            ),
            _WHO,
            (
                Touchpoint(
                    "email.received",
                    "email",
                    _AT,
                    {"subject": None},
                    {"private": {"subject": "Where is it?", "body": "I have waited for a week."}},
                ),
            ),
            headers=_FORM,
        ),
    ),
)

FIXTURES = (_AUDIENCE, _TRANSACTIONAL)
