"""Error codes of the API, and the exceptions that carry them.

There are two kinds of failure:

* A *message* that cannot be stored is data. The receipt reports it as a :class:`Rejection` with a
  :class:`RejectionCode`, and quarantine keeps the original.
* A *request* that cannot be served raises a :class:`SegueError`. Each subclass has one HTTP status. The response is an
  RFC 9457 problem document that repeats ``code`` and ``message`` at top level, because SDKs look there.

Exceptions and their statuses::

    SegueError               500
    +- BadRequest            400
    |  +- InvalidBody        400   not JSON, not gzip, or the wrong envelope
    |  +- BodyTooLarge       400   as Segment answers: SDKs drop the batch instead of retrying it
    |  +- MalformedRequest   400   not HTTP/1.1; the server closes the connection, as after the next three
    +- HeadTooSlow           408
    +- BodyTooSlow           408
    +- HeadTooLarge          431
    +- Unauthorized          401
    |  +- InvalidToken       401   forged, expired or issued for another source
    |  +- InvalidSignature   401   missing, wrong, stale or replayed
    +- Forbidden             403   valid key of the wrong type
    |  +- OriginNotAllowed   403   write key used from another origin
    +- NotFound              404
    +- Conflict              409
    |  +- LastSecretKey      409   no secret key would be left
    +- InvalidDefinition     422   with the JSON path of the node and a remedy
    +- RateLimited           429   Retry-After in whole seconds
    |  +- TooManyConnections 429   of one address; the server closes the connection
    +- OtherSettings         503
    +- ReadTooLarge          503   without Retry-After: the same read fails again
    +- ReadTimedOut          504
    +- Overloaded            503   Retry-After in whole seconds; stored messages are duplicates on a retry

``docs/reference/errors.md`` lists every code; a test compares that page with this module.
"""

from __future__ import annotations

import enum
from typing import Any

import msgspec


class RejectionCode(enum.StrEnum):
    """Reasons for rejecting one message, in order of precedence: a receipt reports the first that applies."""

    UNREADABLE = "unreadable"
    INVALID_UTF8 = "invalid_utf8"
    NOT_AN_OBJECT = "not_an_object"
    MESSAGE_TOO_LARGE = "message_too_large"
    TOO_MANY_MESSAGES = "too_many_messages"
    TOO_DEEP = "too_deep"
    NUMBER_OUT_OF_RANGE = "number_out_of_range"
    UNKNOWN_TYPE = "unknown_type"
    INVALID_FIELD = "invalid_field"
    INVALID_ID = "invalid_id"
    MISSING_EVENT = "missing_event"
    EVENT_TOO_LONG = "event_too_long"
    MISSING_GROUP_ID = "missing_group_id"
    MISSING_ALIAS_IDS = "missing_alias_ids"
    MISSING_IDENTITY = "missing_identity"
    BOT = "bot"
    TRACKING_PLAN = "tracking_plan"
    UNSTORABLE = "unstorable"

    @property
    def is_retryable(self) -> bool:
        """True if the same message, sent again unchanged, can be accepted."""
        return self is RejectionCode.TOO_MANY_MESSAGES

    @property
    def meaning(self) -> str:
        """Text for people: what is wrong with the message. Receipts carry it as ``message``."""
        return _MEANINGS[self]


_MEANINGS: dict[RejectionCode, str] = {
    RejectionCode.UNREADABLE: "the webhook, or one of its events, is not in the format of its tool",
    RejectionCode.INVALID_UTF8: "a text of the message is not UTF-8",
    RejectionCode.NOT_AN_OBJECT: "the batch item is not a JSON object",
    RejectionCode.MESSAGE_TOO_LARGE: "the message exceeds the size limit of one message",
    RejectionCode.TOO_MANY_MESSAGES: "the batch exceeds the limit of messages; send this message in another batch",
    RejectionCode.TOO_DEEP: "the message is nested deeper than the limit",
    RejectionCode.NUMBER_OUT_OF_RANGE: "a number in the message has more than 400 digits when written out",
    RejectionCode.UNKNOWN_TYPE: "type must be track, identify, page, screen, group or alias",
    RejectionCode.INVALID_FIELD: "a field of the message has the wrong JSON type",
    RejectionCode.INVALID_ID: "an id is too long, or contains NUL or a lone surrogate",
    RejectionCode.MISSING_EVENT: "a track message needs a non-empty event name",
    RejectionCode.EVENT_TOO_LONG: "the event name is too long, or contains NUL or a lone surrogate",
    RejectionCode.MISSING_GROUP_ID: "a group message needs groupId",
    RejectionCode.MISSING_ALIAS_IDS: "an alias message needs previousId and userId",
    RejectionCode.MISSING_IDENTITY: "the message has no usable id, email or phone; junk ids such as null are ignored",
    RejectionCode.BOT: "the user agent belongs to a bot, and the source does not accept bots",
    RejectionCode.TRACKING_PLAN: "the properties violate the tracking plan, which quarantines such messages",
    RejectionCode.UNSTORABLE: "the database cannot store the message",
}


class Rejection(msgspec.Struct, frozen=True):
    """One message of a request that was not stored.

    ``original`` holds the bytes that the client sent. ``form`` identifies the parser in
    :mod:`app.quarantine.reparse` that reads them; an empty ``form`` means a Segment message.
    """

    index: int
    code: RejectionCode
    message: str
    message_id: str | None = None
    original: bytes = b""
    is_quarantined: bool = True
    form: str = ""


class SegueError(Exception):
    """Base class of all failures of a request."""

    status = 500
    code = "internal_error"
    title = "Internal server error"

    def __init__(self, message: str | None = None, **extra: Any) -> None:
        super().__init__(message or self.title)
        self.message = message or self.title
        self.extra = extra

    @property
    def headers(self) -> dict[str, str]:
        return {}

    def to_problem(self) -> dict[str, Any]:
        """Return the problem document. ``detail`` repeats ``message`` for clients that only know RFC 9457."""
        return {
            "type": f"urn:segue:error:{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.message,
            "code": self.code,
            "message": self.message,
            **self.extra,
        }


class BadRequest(SegueError):
    status = 400
    code = "bad_request"
    title = "Invalid request"


class InvalidBody(BadRequest):
    code = "invalid_body"
    title = "Invalid request body"


class BodyTooLarge(BadRequest):
    code = "body_too_large"
    title = "Request body too large"


class MalformedRequest(BadRequest):
    code = "malformed_request"
    title = "Malformed HTTP request"


class HeadTooSlow(SegueError):
    status = 408
    code = "head_too_slow"
    title = "Request head timed out"


class BodyTooSlow(SegueError):
    """The client sent its body too slowly. SDKs retry on this status; the server closes the connection."""

    status = 408
    code = "body_too_slow"
    title = "Request body timed out"


class HeadTooLarge(SegueError):
    """The head or the trailers have too many bytes or fields."""

    status = 431
    code = "head_too_large"
    title = "Request head too large"


class Unauthorized(SegueError):
    status = 401
    code = "unauthorized"
    title = "API key missing or invalid"

    @property
    def headers(self) -> dict[str, str]:
        # The challenge contains Bearer but not Basic, because a Basic challenge makes browsers ask for a password.
        return {"WWW-Authenticate": 'Bearer realm="segue"'}


class InvalidToken(Unauthorized):
    code = "invalid_token"
    title = "Visitor token invalid or expired"


class InvalidSignature(Unauthorized):
    """The signature of a webhook is not valid. Its field ``reason`` is missing, wrong, stale or replayed."""

    code = "invalid_signature"
    title = "Webhook signature missing or invalid"


class Forbidden(SegueError):
    status = 403
    code = "forbidden"
    title = "API key of the wrong type"


class OriginNotAllowed(Forbidden):
    code = "origin_not_allowed"
    title = "Origin not allowed for this key"


class NotFound(SegueError):
    status = 404
    code = "not_found"
    title = "Not found"


class Conflict(SegueError):
    status = 409
    code = "conflict"
    title = "Conflict with existing data"


class LastSecretKey(Conflict):
    """A revocation would leave no valid secret key, and so no way to manage the workspace over the API."""

    code = "last_secret_key"
    title = "Last secret key"

    def __init__(self) -> None:
        super().__init__("This is the only valid secret key. Create another one first, then revoke this one.")


class InvalidDefinition(SegueError):
    """A rule, journey or trait is not valid.

    ``path`` is the JSON path of the invalid node, such as ``/rule/all/0/did``; ``remedy`` describes the correction.
    """

    status = 422
    code = "invalid_definition"
    title = "Invalid definition"

    def __init__(self, path: str, message: str, remedy: str) -> None:
        super().__init__(f"{path or 'the definition'}: {message}. {remedy}", path=path, remedy=remedy)
        self.path = path
        self.remedy = remedy


class OtherSettings(SegueError):
    """A process of this workspace started later than this one, with other settings or another version of Segue."""

    status = 503
    code = "other_settings"
    title = "Process runs with outdated settings"


class ReadTooLarge(SegueError):
    """The background process reached its memory limit while it computed the response."""

    status = 503
    code = "read_too_large"
    title = "Read needs too much memory"


class ReadTimedOut(SegueError):
    status = 504
    code = "read_timed_out"
    title = "Read took too long"


class RateLimited(SegueError):
    status = 429
    code = "rate_limited"
    title = "Rate limit exceeded"

    def __init__(self, message: str | None = None, retry_after_seconds: int = 1) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds

    @property
    def headers(self) -> dict[str, str]:
        return {"Retry-After": str(self.retry_after_seconds)}


class TooManyConnections(RateLimited):
    code = "too_many_connections"
    title = "Too many connections from one address"


class Overloaded(SegueError):
    status = 503
    code = "overloaded"
    title = "Service temporarily unavailable"

    def __init__(self, message: str | None = None, retry_after_seconds: int = 1) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds

    @property
    def headers(self) -> dict[str, str]:
        return {"Retry-After": str(self.retry_after_seconds)}
