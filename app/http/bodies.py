"""Request bodies: read with a size limit, parsed with exact numbers, and validated."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any, Final, TypeVar

import msgspec
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request

from app.errors import BadRequest, BodyTooLarge, InvalidBody

KEPT_BODY: Final = "segue.body"
"""Key of a request's scope under which :func:`read_struct` keeps the body."""

_MODEL_BYTES_MAX: Final = 100_000

_Model = TypeVar("_Model", bound=BaseModel)
_Struct = TypeVar("_Struct", bound=msgspec.Struct)

_decode = msgspec.json.Decoder(float_hook=Decimal).decode


async def read_body(request: Request, bytes_max: int) -> bytes:
    """Return the body as sent, and stop reading at ``bytes_max``.

    Raises:
        BodyTooLarge: the body is larger than ``bytes_max``.
        BodyTooSlow, Overloaded, HeadTooLarge: a bound of :mod:`app.http.server_protocol` ends the request.
        InvalidBody: the client disconnected before the end of the body.
    """
    length = request.headers.get("content-length", "")
    if length.isdecimal() and (len(length) > 18 or int(length) > bytes_max):
        raise BodyTooLarge(f"The body is larger than {bytes_max} bytes.")
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > bytes_max:
                raise BodyTooLarge(f"The body is larger than {bytes_max} bytes.")
            chunks.append(chunk)
    except ClientDisconnect:
        raise InvalidBody("The client disconnected before the body was complete.") from None
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def read_json(request: Request, bytes_max: int) -> Any:
    """Read the body and parse it as :func:`parse_json` does. Raise the errors of :func:`read_body` too."""
    return parse_json(await read_body(request, bytes_max))


def parse_json(body: bytes) -> Any:
    """Parse JSON, with numbers as ``int`` or ``Decimal``. Raise :class:`InvalidBody` if it is invalid."""
    try:
        return _decode(body.removeprefix(b"\xef\xbb\xbf"))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, InvalidOperation, ValueError) as error:
        raise InvalidBody(f"The body is not valid JSON ({type(error).__name__}).") from None


async def read_model(
    request: Request, model: type[_Model], bytes_max: int = _MODEL_BYTES_MAX, *, may_be_empty: bool = False
) -> _Model:
    """Read a small body and validate it as ``model``. Raise :class:`BadRequest` with the path of the first error.

    If ``may_be_empty``, an empty body counts as an empty object.
    """
    body = await read_body(request, bytes_max)
    data = {} if may_be_empty and not body else parse_json(body)
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first_error = error.errors(include_url=False, include_input=False)[0]
        path = "/" + "/".join(str(part) for part in first_error["loc"])
        raise BadRequest(f"{path}: {first_error['msg']}", path=path) from None


async def read_struct(
    request: Request, struct: type[_Struct], bytes_max: int, *, may_be_empty: bool = False
) -> _Struct:
    """Read a body and convert it to ``struct``, with exact numbers. Raise :class:`BadRequest` if it does not match.

    If ``may_be_empty``, an empty body counts as an empty object. The request keeps the body, so that
    :mod:`app.http.background_reads` can forward it.
    """
    body = await read_body(request, bytes_max)
    request.scope[KEPT_BODY] = body
    data = {} if may_be_empty and not body else parse_json(body)
    try:
        return msgspec.convert(data, struct)
    except msgspec.ValidationError as error:
        raise BadRequest(f"The body does not match its schema: {error}.") from None
