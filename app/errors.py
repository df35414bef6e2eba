"""What can go wrong, in one place.

Two kinds, kept apart on purpose:

* a *message* that cannot be stored is data: a :class:`Rejection` in the receipt, its code one of the
  closed :class:`RejectionCode`, its original kept in quarantine;
* a *request* that cannot be served is an exception: a subclass of :class:`SegueError`, one HTTP status
  each, answered as RFC 9457 problem details that also carry ``code`` and ``message`` at top level,
  because that is where SDKs look.

    SegueError
    +- BadRequest            400
    |  +- InvalidBody        400   not JSON, not gzip, wrong envelope
    |  +- BodyTooLarge       400   Segment answers 400 to an over-size body, and SDKs drop on it
    +- BodyTooSlow           408
    +- Unauthorized          401
    |  +- InvalidToken       401   of a visitor: forged, ended, or made for another source
    |  +- InvalidSignature   401   of a webhook: missing, wrong, stale or replayed
    +- Forbidden             403   the key is real but of the other kind
    |  +- OriginNotAllowed   403   the key is not for this page
    +- NotFound              404
    +- Conflict              409
    +- InvalidDefinition     422   carries the path of the node and the remedy
    +- RateLimited           429   integer Retry-After
    +- Overloaded            503   integer Retry-After; nothing of the request was stored
"""

from __future__ import annotations

import enum
from typing import Any

import msgspec


class RejectionCode(enum.StrEnum):
    """Why one message was not stored. Declared in order of precedence: the first that applies is reported.

    ``is_retryable`` tells whether sending the same message again, unchanged, can succeed.
    """

    UNREADABLE = "unreadable"
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
        return self is RejectionCode.TOO_MANY_MESSAGES

    @property
    def meaning(self) -> str:
        return _MEANINGS[self]


_MEANINGS: dict[RejectionCode, str] = {
    RejectionCode.UNREADABLE: "a webhook, or one event of it, is not what its tool sends",
    RejectionCode.NOT_AN_OBJECT: "the batch item is not a JSON object",
    RejectionCode.MESSAGE_TOO_LARGE: "the message is larger than the limit of one message",
    RejectionCode.TOO_MANY_MESSAGES: "the message stands beyond the limit of messages in one batch; send it in another",
    RejectionCode.TOO_DEEP: "the message nests deeper than the limit",
    RejectionCode.NUMBER_OUT_OF_RANGE: "a number in the message needs more than 400 digits to write out",
    RejectionCode.UNKNOWN_TYPE: "type is not one of track, identify, page, screen, group, alias",
    RejectionCode.INVALID_FIELD: "a field of the message has the wrong JSON type",
    RejectionCode.INVALID_ID: "an id is longer than the limit, or holds NUL or a lone surrogate",
    RejectionCode.MISSING_EVENT: "a track message needs a non-empty event name",
    RejectionCode.EVENT_TOO_LONG: "the event name is longer than the limit, or holds NUL or a lone surrogate",
    RejectionCode.MISSING_GROUP_ID: "a group message needs groupId",
    RejectionCode.MISSING_ALIAS_IDS: "an alias message needs previousId and userId",
    RejectionCode.MISSING_IDENTITY: "the message carries no usable identity; junk ids count as absent",
    RejectionCode.BOT: "the user agent is a bot's, and the source quarantines or drops those",
    RejectionCode.TRACKING_PLAN: "the properties do not keep to the tracking plan, which quarantines such messages",
    RejectionCode.UNSTORABLE: "the database refused the message",
}


class Rejection(msgspec.Struct, frozen=True):
    """One message of a request that was not stored. ``original`` is what the client sent.

    ``form`` says which reader of :mod:`app.quarantine.reparse` takes the original; empty is a message of ours.
    """

    index: int
    code: RejectionCode
    message: str
    message_id: str | None = None
    original: bytes = b""
    is_quarantined: bool = True
    form: str = ""


class SegueError(Exception):
    """Base of every request-level failure."""

    status = 500
    code = "internal_error"
    title = "Something went wrong on our side"

    def __init__(self, message: str | None = None, **extra: Any) -> None:
        super().__init__(message or self.title)
        self.message = message or self.title
        self.extra = extra

    @property
    def headers(self) -> dict[str, str]:
        return {}

    def to_problem(self) -> dict[str, Any]:
        """The one error shape. ``detail`` repeats ``message`` for clients that read RFC 9457 only."""
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
    title = "The request cannot be read"


class InvalidBody(BadRequest):
    code = "invalid_body"
    title = "The body cannot be read"


class BodyTooLarge(BadRequest):
    code = "body_too_large"
    title = "The body is larger than the limit"


class BodyTooSlow(SegueError):
    """SDKs send it again; the connection is of no more use."""

    status = 408
    code = "body_too_slow"
    title = "The body took too long to arrive"

    @property
    def headers(self) -> dict[str, str]:
        return {"Connection": "close"}


class Unauthorized(SegueError):
    status = 401
    code = "unauthorized"
    title = "A valid key is needed"

    @property
    def headers(self) -> dict[str, str]:
        # Not Basic, which is taken too: on that browsers ask their user for a password.
        return {"WWW-Authenticate": 'Bearer realm="segue"'}


class InvalidToken(Unauthorized):
    code = "invalid_token"
    title = "The visitor token does not hold"


class InvalidSignature(Unauthorized):
    """``reason`` is missing, wrong, stale or replayed."""

    code = "invalid_signature"
    title = "The webhook is not shown to be its tool's"


class Forbidden(SegueError):
    status = 403
    code = "forbidden"
    title = "This key may not do that"


class OriginNotAllowed(Forbidden):
    code = "origin_not_allowed"
    title = "This key may not be used by this page"


class NotFound(SegueError):
    status = 404
    code = "not_found"
    title = "There is no such thing"


class Conflict(SegueError):
    status = 409
    code = "conflict"
    title = "It conflicts with what there is"


class InvalidDefinition(SegueError):
    """``path`` is the JSON path of the offending node, such as ``/rule/all/0/did``."""

    status = 422
    code = "invalid_definition"
    title = "The definition is not valid"

    def __init__(self, path: str, message: str, remedy: str) -> None:
        super().__init__(f"{path or 'the definition'}: {message}. {remedy}", path=path, remedy=remedy)
        self.path = path
        self.remedy = remedy


class OtherSettings(SegueError):
    """Another process of this workspace was started with other settings, or another version, than this one."""

    status = 503
    code = "other_settings"
    title = "This process reads the definitions otherwise than the one that was started last"


class RateLimited(SegueError):
    status = 429
    code = "rate_limited"
    title = "Too many requests; send it again later"

    def __init__(self, message: str | None = None, retry_after_seconds: int = 1) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds

    @property
    def headers(self) -> dict[str, str]:
        return {"Retry-After": str(self.retry_after_seconds)}


class Overloaded(SegueError):
    status = 503
    code = "overloaded"
    title = "Too much is waiting; send it again later"

    def __init__(self, message: str | None = None, retry_after_seconds: int = 1) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds

    @property
    def headers(self) -> dict[str, str]:
        return {"Retry-After": str(self.retry_after_seconds)}
