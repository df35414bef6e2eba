"""Request bodies: read within a bound, and parsed with exact numbers where a definition is meant."""

from __future__ import annotations

import asyncio
from decimal import Decimal, InvalidOperation
from typing import Any, Final, TypeVar

import msgspec
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request

from app.errors import BadRequest, BodyTooLarge, BodyTooSlow, InvalidBody

BODY_SECONDS_MAX: Final = 60.0
"""A slow phone sends the largest body in this time; whoever drips bytes must not hold a request open for ever."""

_MODEL_BYTES_MAX: Final = 100_000

_Model = TypeVar("_Model", bound=BaseModel)
_Struct = TypeVar("_Struct", bound=msgspec.Struct)

_decode = msgspec.json.Decoder(float_hook=Decimal).decode


async def read_body(request: Request, bytes_max: int) -> bytes:
    """The body as sent, within ``bytes_max`` and SECONDS_MAX; past them nothing more is read.

    Raises :class:`BodyTooLarge`, :class:`BodyTooSlow`, or :class:`InvalidBody` for one that breaks off.
    """
    length = request.headers.get("content-length", "")
    if length.isdecimal() and (len(length) > 18 or int(length) > bytes_max):
        raise BodyTooLarge(f"The body is larger than {bytes_max} bytes.")
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_SECONDS_MAX):
            async for chunk in request.stream():
                size += len(chunk)
                if size > bytes_max:
                    raise BodyTooLarge(f"The body is larger than {bytes_max} bytes.")
                chunks.append(chunk)
    except TimeoutError:
        raise BodyTooSlow(f"The body was not complete after {BODY_SECONDS_MAX:g} seconds.") from None
    except ClientDisconnect:
        raise InvalidBody("The body ended before it was complete.") from None
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def read_json(request: Request, bytes_max: int) -> Any:
    """Parsed JSON, numbers as ``int`` or ``Decimal``. Raises :class:`InvalidBody` for anything else."""
    return parse_json(await read_body(request, bytes_max))


def parse_json(body: bytes) -> Any:
    """Numbers as ``int`` or ``Decimal``. Raises :class:`InvalidBody`."""
    try:
        return _decode(body.removeprefix(b"\xef\xbb\xbf"))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, InvalidOperation, ValueError) as error:
        raise InvalidBody(f"The body is not JSON that can be read: {type(error).__name__}.") from None


async def read_model(request: Request, model: type[_Model], bytes_max: int = _MODEL_BYTES_MAX) -> _Model:
    """A small body of a fixed shape. Raises :class:`BadRequest` with the path of the first fault."""
    data = await read_json(request, bytes_max)
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first_error = error.errors(include_url=False, include_input=False)[0]
        path = "/" + "/".join(str(part) for part in first_error["loc"])
        raise BadRequest(f"{path}: {first_error['msg']}", path=path) from None


async def read_struct(
    request: Request, struct: type[_Struct], bytes_max: int, *, may_be_empty: bool = False
) -> _Struct:
    """Read a body of a fixed shape, with exact numbers. Raise :class:`BadRequest` if it does not fit.

    ``may_be_empty``: no body stands for an empty object.
    """
    body = await read_body(request, bytes_max)
    data = {} if may_be_empty and not body else parse_json(body)
    try:
        return msgspec.convert(data, struct)
    except msgspec.ValidationError as error:
        raise BadRequest(f"The body does not fit: {error}.") from None
