"""HTTP/1.1 protocol of the server: extends uvicorn with bounds on heads, trailers, pipelining, bodies and time.

uvicorn gives all bytes that it receives to the parser. The parser then keeps a header of any size, and uvicorn any
number of headers, trailers and pipelined requests. This protocol gives the parser one request at a time, in pieces that
end where a head or a chunked body can end. So it knows how many bytes it has read without a result, and it can leave
the following requests unparsed until the response is sent.

The pieces do not affect the meaning of a request, because only the parser decides where a request ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from http import HTTPStatus
from typing import Any, Final

import httptools
from fastapi import FastAPI
from uvicorn._types import ASGIReceiveEvent
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from app.errors import BodyTooSlow, HeadTooLarge, HeadTooSlow, MalformedRequest, Overloaded, SegueError
from app.http.connection_limits import ConnectionLimits, Phase, Refusal
from app.http.responses import encode_json

_END: Final = b"\r\n\r\n"
"""End of a head, and of a chunked body with or without trailers."""
_CHUNKED_PIECE_BYTES_MAX: Final = 16_384
_TURN_BYTES_MAX: Final = 16_384
"""Bytes that one connection parses before the event loop serves the others."""
_PIECE_BYTES: Final = 256
"""Bytes of a turn that each piece uses up at least: a body of blank lines has a piece in every four bytes."""
_DISCARDED_BYTES_MAX: Final = 1_000_000
"""Bytes that are read and discarded after a response to an incomplete request, so that the client gets the response."""
_HEADER_BYTES: Final = 160
"""Memory of one header beside its text: a tuple and two byte strings."""
_UNREAD_BYTES_MAX: Final = 16_384
"""Bytes of responses that wait for one client, above which no further request of this client starts."""
_RETRY_SECONDS: Final = 1


def create_protocol_class(app: FastAPI) -> type[asyncio.Protocol]:
    """Return the protocol class for uvicorn's option ``http``, with the limits of this application."""
    return type("_ApplicationProtocol", (BoundedProtocol,), {"connection_limits": app.state.connection_limits})


class _Flow(FlowControl):
    """Flow control that ignores requests of uvicorn to resume reading while it is held."""

    is_held = False

    def hold(self) -> None:
        self.is_held = True
        self.pause_reading()

    def release(self) -> None:
        if self.is_held:
            self.is_held = False
            self.resume_reading()

    def resume_reading(self) -> None:
        if not self.is_held:
            super().resume_reading()


class _Cycle(RequestResponseCycle):
    """A request and its response. If ``failure`` is set, a handler that reads the body gets this error."""

    failure: SegueError | None = None

    async def receive(self) -> ASGIReceiveEvent:
        event = await super().receive()
        if self.failure is not None and not self.response_complete:
            raise self.failure
        return event

    def fail(self, error: SegueError) -> None:
        """Make the handler respond with an error, and close the connection after the response."""
        self.failure = error
        self.keep_alive = False
        self.body = bytearray()
        self.message_event.set()


class BoundedProtocol(HttpToolsProtocol):
    """One connection. Its limits are shared with the other connections of the process."""

    connection_limits: ConnectionLimits
    flow: _Flow
    cycle: _Cycle | None  # type: ignore[assignment]

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.address: str | None = None
        limits = self.connection_limits.limits
        self._head_bytes_max = limits.head_bytes_max
        self._headers_max = limits.headers_max
        self._phase = Phase.HEAD
        self._reported_phase = Phase.HEAD
        self._input = b""
        self._offset = 0
        self._last_bytes = b""
        """The last three bytes of a piece, because the end of a head can be split over two packets."""
        self._fruitless_bytes = 0
        """Bytes since the parser last completed a head or found a part of a body."""
        self._body_bytes = 0
        self._body_bytes_left: int | None = None
        """Bytes of the body that have not arrived; None if its length is unknown."""
        self._trailers = 0
        self._has_begun = False
        """True from the first byte of a request to the end of its response."""
        self._discarded_bytes = 0
        self._is_turn_due = False
        self._refusal: SegueError | None = None

    # ------------------------------------------------------------------------------------------ connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=_UNREAD_BYTES_MAX)
        self.flow = _Flow(transport)
        self.address = self.client[0] if self.client is not None else None
        trusted_proxies: Collection[str] = getattr(self.config.loaded_app, "trusted_hosts", ())
        error = self.connection_limits.admit(self, trusted_proxies)
        if error is not None:
            self._phase = Phase.CLOSING
            self.transport.write(self._encode_refusal(error))
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.connection_limits.forget(self)
        self._phase = Phase.CLOSING
        super().connection_lost(exc)

    def eof_received(self) -> None:
        """Close the connection at the end of the input, as asyncio does if this method returns None."""

    def pause_writing(self) -> None:
        super().pause_writing()
        self.connection_limits.stall(self, self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        super().resume_writing()
        self.connection_limits.unstall(self)
        if self._phase is Phase.IDLE:
            self._parse_input()

    def shutdown(self) -> None:
        """Close an idle connection; otherwise close it after the response. A client that does not read is cut."""
        super().shutdown()
        if self.cycle is None:
            self._enter(Phase.CLOSING)

    def end_phase(self, phase: Phase) -> None:
        match phase:
            case Phase.IDLE:
                self._enter(Phase.CLOSING)
                self.transport.close()  # If the client does not read, this never ends; then the connection is cut.
            case Phase.HEAD if self._has_begun:
                self._refuse(HeadTooSlow(), "head_time")
            case Phase.HEAD:
                self.connection_limits.refuse("head_time")
                self.transport.close()
            case Phase.BODY:
                self._refuse(BodyTooSlow(), "body_time")
            case Phase.CLOSING | Phase.RESPONSE:
                self.cut()

    def give_way(self) -> None:
        """Refuse an incomplete request. If a response is pending, drop the requests behind it."""
        error = Overloaded("Too many requests are incomplete; send it again.", _RETRY_SECONDS)
        if self.cycle is None:
            self._drop_input()
            self._enter(Phase.CLOSING)
            self.transport.write(self._encode_refusal(error) if self._has_begun else b"")
            self.transport.close()
        elif self._phase is Phase.RESPONSE:
            self._drop_input()
            self.cycle.keep_alive = False
        else:
            self._answer_refusal(error)

    def cut(self) -> None:
        self.transport.abort()

    # ------------------------------------------------------------------------------------------------ input

    def data_received(self, data: bytes) -> None:
        if self._phase is Phase.CLOSING:
            self._discard(len(data))
            return
        if self._offset < len(self._input):
            data = self._input[self._offset :] + data
        self._input, self._offset = data, 0
        self._parse_input()

    def _parse_input(self) -> None:
        """Parse until a request is complete; the next one is parsed after the client has read most of the response.

        A chunked body can need far more time than its size suggests, so other connections take turns with it.
        """
        size = len(self._input)
        turn_bytes_left = _TURN_BYTES_MAX
        while self._offset < size and not self._must_wait():
            if turn_bytes_left <= 0:
                self._parse_later()
                break
            end = self._find_piece_end(self._input, self._offset, size)
            turn_bytes_left -= max(end - self._offset, _PIECE_BYTES)
            piece = memoryview(self._input)[self._offset : end]
            self._offset = end
            self._parse_piece(piece)
            size = len(self._input)
        if self._phase is Phase.CLOSING:
            self._drop_input()
            return
        if self._offset < size:
            self.flow.hold()
        else:
            self._drop_input()
        self._report()

    def _parse_later(self) -> None:
        if not self._is_turn_due:
            self._is_turn_due = True
            self.loop.call_soon(self._take_turn)

    def _take_turn(self) -> None:
        self._is_turn_due = False
        if self._phase is not Phase.CLOSING:
            self._parse_input()

    def _must_wait(self) -> bool:
        return self._phase in (Phase.RESPONSE, Phase.CLOSING) or (self._phase is Phase.IDLE and self.flow.write_paused)

    def _find_piece_end(self, data: bytes, start: int, size: int) -> int:
        if self._phase is Phase.BODY and self._body_bytes_left is not None:
            return min(start + self._body_bytes_left, size)
        split_end = (self._last_bytes + data[start : start + 3]).find(_END) if self._last_bytes else -1
        if split_end >= 0:
            end = start + split_end + len(_END) - len(self._last_bytes)
        else:
            position = data.find(_END, start)
            end = size if position < 0 else position + len(_END)
        piece_bytes_max = (
            _CHUNKED_PIECE_BYTES_MAX if self._phase is Phase.BODY else self._head_bytes_max + 1 - self._fruitless_bytes
        )
        end = min(end, start + piece_bytes_max)
        self._last_bytes = (self._last_bytes + data[max(start, end - 3) : end])[-3:]
        return end

    def _parse_piece(self, piece: memoryview) -> None:
        if self._phase is Phase.IDLE:
            self._phase = Phase.HEAD
        self._fruitless_bytes += len(piece)
        if self._fruitless_bytes > self._head_bytes_max and self._body_bytes_left is None:
            self._refuse(HeadTooLarge(f"The head, or the trailers, exceed {self._head_bytes_max} bytes."), "head_size")
            return
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            pass  # No other protocol is supported; RFC 9110 lets a server ignore the request to switch.
        except httptools.HttpParserError:
            if self._refusal is not None:
                self._refuse(self._refusal, "head_size")
            else:
                self._refuse(MalformedRequest(), "malformed")

    def _drop_input(self) -> None:
        self._input, self._offset = b"", 0
        self.flow.release()

    def _discard(self, received_bytes: int) -> None:
        self._discarded_bytes += received_bytes
        if self._discarded_bytes > _DISCARDED_BYTES_MAX:
            self.cut()

    def _report(self) -> None:
        """Report the phase, and the memory of the incomplete request or of the requests that are not parsed yet."""
        if self._phase is not self._reported_phase:
            self._enter(self._phase)
        held_bytes = len(self._input) - self._offset
        if self._phase is Phase.HEAD:
            held_bytes += self._fruitless_bytes + _HEADER_BYTES * len(self.headers or ())
        elif self._phase is Phase.BODY:
            held_bytes += self._body_bytes
        self.connection_limits.hold(self, held_bytes)

    def _enter(self, phase: Phase) -> None:
        self._phase = self._reported_phase = phase
        self.connection_limits.enter(self, phase)

    # --------------------------------------------------------------------------------------- parser callbacks

    def _should_upgrade_to_ws(self) -> bool:
        return False

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._has_begun = True
        self._body_bytes = 0
        self._body_bytes_left = None
        self._trailers = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header. A trailer is counted and dropped: handlers have the headers already, and must not see others.

        An exception makes the parser fail; :meth:`_parse_piece` handles it.
        """
        if self._phase is Phase.BODY:
            self._trailers += 1
            if self._trailers > self._headers_max:
                self._fail_parsing(HeadTooLarge(f"The request has more than {self._headers_max} trailers."))
            return
        if len(self.headers) >= self._headers_max:
            self._fail_parsing(HeadTooLarge(f"The request has more than {self._headers_max} headers."))
        super().on_header(name, value)

    def _fail_parsing(self, error: SegueError) -> None:
        self._refusal = error
        raise error

    def on_headers_complete(self) -> None:
        """Start the handler. No earlier request is pending, because requests are parsed one at a time."""
        self._fruitless_bytes = 0
        self._phase = Phase.BODY
        for name, value in self.headers:
            if name == b"content-length":
                self._body_bytes_left = int(value)
        self.cycle = None
        super().on_headers_complete()
        assert self.cycle is not None
        self.cycle.__class__ = _Cycle

    def on_chunk_header(self) -> None:
        self._fruitless_bytes = 0

    def on_body(self, body: bytes) -> None:
        self._fruitless_bytes = 0
        if self._body_bytes_left is not None:
            self._body_bytes_left -= len(body)
        cycle = self.cycle
        if cycle is None or cycle.response_complete or cycle.failure is not None:
            self._discard(len(body))
            return
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._phase = Phase.RESPONSE
        self._last_bytes = b""
        super().on_message_complete()
        if self.cycle is None or self.cycle.response_complete:
            self._wait_for_request()

    def on_response_complete(self) -> None:
        """Wait for the rest of the request, or start the next one."""
        self.server_state.total_requests += 1
        if self.transport.is_closing() or self._phase is Phase.CLOSING:
            self._enter(Phase.CLOSING)
            self._drop_input()
        elif self._phase is Phase.BODY:
            self._body_bytes = 0
            if self.expect_100_continue or (self._body_bytes_left or 0) > _DISCARDED_BYTES_MAX:
                # The client may not send the body, or too much of it.
                self._close_slowly()
            else:
                self.flow.resume_reading()
                self._report()
        else:
            self._wait_for_request()
            self._parse_input()

    def _wait_for_request(self) -> None:
        """Release the memory of the last request. An idle connection must cost little."""
        self.cycle = None
        self._has_begun = False
        self.scope = self.headers = None  # type: ignore[assignment]
        self._discarded_bytes = self._fruitless_bytes = self._body_bytes = 0
        self.flow.resume_reading()  # The last piece of a large body may have paused it.
        self._enter(Phase.IDLE)

    # ------------------------------------------------------------------------------------------------ refusals

    def _refuse(self, error: SegueError, reason: Refusal) -> None:
        self.connection_limits.refuse(reason)
        self._answer_refusal(error)

    def _answer_refusal(self, error: SegueError) -> None:
        """Refuse the request that is being read: through its handler if it has one, else directly."""
        cycle = self.cycle
        if cycle is None:
            self.transport.write(self._encode_refusal(error))
            self._close_slowly()
        elif cycle.response_complete:
            self._close_slowly()
        else:
            self._enter(Phase.CLOSING)
            self._drop_input()
            cycle.fail(error)

    def _close_slowly(self) -> None:
        """End the output, but read for a moment: otherwise the client's kernel could drop the response unread."""
        self._enter(Phase.CLOSING)
        self._drop_input()
        if not self.transport.is_closing():
            self.transport.write_eof()

    def _encode_refusal(self, error: SegueError) -> bytes:
        body = encode_json(error.to_problem())
        headers = [
            *self.server_state.default_headers,
            (b"content-type", b"application/problem+json"),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
            *((name.encode(), value.encode()) for name, value in error.headers.items()),
        ]
        status = HTTPStatus(error.status)
        lines = [b"HTTP/1.1 %d %b" % (status, status.phrase.encode()), *(b"%b: %b" % header for header in headers)]
        return b"\r\n".join(lines) + _END + body
