"""One client's connection: requests handled in order, responses out in the same order.

Of its lower parts `FrameReceiver` finds the frames and `ResponseSender` sends the answers. One request is in work at a
time, and later ones stay unread in the socket; Produce is the exception: many may be in flight, answered in order. A
whole chunk of Produce requests is accepted first, then written at once, then answered at once.

Owned by the event loop. Nothing here waits: every entry is a callback of the transport, of a Delayed or of a partition.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final, cast

from millstream.core.broker.context import ANONYMOUS, RequestContext
from millstream.core.broker.delayed import Delayed
from millstream.core.broker.dispatch import Route, error_response
from millstream.core.broker.fast_produce import FastProduce
from millstream.core.broker.response_sender import ResponseSender
from millstream.core.wire import ApiKey, WireError, parse_request_header

if TYPE_CHECKING:
    from millstream.core.broker.connections import Connections
    from millstream.core.broker.direct_send import Part
    from millstream.core.broker.fast_commit import FastAnswer, FastCommit
    from millstream.core.broker.memory_pool import FrameBuffer

# Responses that the client has not read yet; above it no further request is handled.
UNSENT_SIZE_BYTES_MAX: Final = 256 * 1024
# Large frames of one connection accepted but not yet answered; of all requests there may be `queued.max.requests`.
IN_FLIGHT_FRAMES_COUNT_MAX: Final = 8
# Records in an answer; behind one so large the loop serves other connections first.
TURN_SIZE_BYTES: Final = 128 * 1024

_FRAME_START: Final = struct.Struct(">ihhi")  # length, api_key, api_version, correlation_id
_LENGTH: Final = struct.Struct(">i")
_LENGTH_SIZE: Final = _LENGTH.size
# api_key, api_version and correlation_id: no request is shorter.
_FRAME_SIZE_MIN: Final = _FRAME_START.size - _LENGTH_SIZE

_PRODUCE: Final = int(ApiKey.PRODUCE)
_OFFSET_COMMIT: Final = int(ApiKey.OFFSET_COMMIT)
_monotonic_ns: Final = time.monotonic_ns


class _Request:
    """A request in work that was decoded in full; its response leaves when it is done and all before it have."""

    __slots__ = ("context", "delayed", "frame", "parts", "request", "route", "started_ns")

    def __init__(self, route: Route, request: Any, context: RequestContext, frame: FrameBuffer | None) -> None:
        self.route = route
        self.request = request
        self.context = context
        self.frame = frame
        self.started_ns = _monotonic_ns()
        self.delayed: Delayed[Any] | None = None
        # The encoded response with its frame length; empty for none, None until it is done.
        self.parts: list[Part] | None = None

    def count(self, response: Any) -> None:
        """Count it as answered; None is the response to acks=0."""
        self.route.observe(self.context.api_version, (_monotonic_ns() - self.started_ns) // 1000, response)


class Connection(ResponseSender):
    """One client's connection; see the module's text.

    States: OPEN -> CLOSED (connection_lost, or close by this side, which drops what is unsent).
    """

    __slots__ = (
        "__weakref__",
        "_busy",
        "_exclusive",
        "_fast_commit",
        "_fast_produce",
        "_frames_in_flight",
        "_in_flight",
        "_muted_timer",
        "_refused",
        "_waits_for_disk",
        "_yields",
        "client_id",
        "connection_id",
        "host",
        "listener",
        "principal",
    )

    def __init__(self, connections: Connections, listener: str) -> None:
        super().__init__(connections)
        self.listener = listener
        self.principal = ANONYMOUS
        self.host = ""
        self.client_id: str | None = None
        self.connection_id = connections.next_connection_id()
        # Nothing more is handled; closed as soon as nothing is in flight.
        self._refused = False
        # Inside `_process`: completions that happen there are sent by it, together.
        self._busy = False
        # Requests in work in their order: _Request, or what FastProduce (a tuple) or FastCommit made. Only Produce is
        # ever more than one.
        self._in_flight: deque[Any] = deque()
        self._frames_in_flight = 0
        # A request in work that is no Produce: nothing is handled beside it.
        self._exclusive: _Request | FastAnswer | None = None
        self._muted_timer: asyncio.TimerHandle | None = None
        # Its next Produce is not taken before some of what was accepted has been written.
        self._waits_for_disk = False
        # The last answer was large: other connections are served before the next request.
        self._yields = False
        self._fast_produce: FastProduce | None = None
        self._fast_commit: FastCommit | None = None

    # The transport's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        # An IPv4 client of a socket for both families comes as ::ffff:a.b.c.d; limits and rules name it a.b.c.d.
        self.host = peer[0].removeprefix("::ffff:") if peer else ""
        self.last_active_ns = _monotonic_ns()
        self._connections.tune(transport.get_extra_info("socket"))
        # Every write is tried at once, and `pause_writing` says when the socket did not take all of it.
        self._transport.set_write_buffer_limits(high=0)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  the transport calls it so
        self._end()

    def eof_received(self) -> bool:
        return False

    # Requests

    def _process(self, data: memoryview, end: int) -> int:
        """Handle the whole frames in data[:end] as far as they may be now; return where the first unhandled byte is."""
        position = 0
        fast = self._fast_produce
        in_flight = self._in_flight
        appends = self._connections.appends
        size_max = self._connections.request_size_bytes_max
        self._busy = True
        now_ns = self.last_active_ns = _monotonic_ns()
        now_ms = self._connections.now_ms() if fast is not None else 0  # nobody else asks
        fast_count = 0
        while end - position >= 12:
            size, api_key, api_version, correlation_id = _FRAME_START.unpack_from(data, position)
            frame_end = position + 4 + size
            if frame_end > end or size < _FRAME_SIZE_MIN:
                break
            if self._is_blocked():
                if len(in_flight) >= self._connections.in_flight_count_max:
                    # Written and answered, they may leave room for the rest of the chunk.
                    self._finish_pass()
                if self._is_blocked():
                    break
            if api_key == _PRODUCE:
                if appends.unwritten_bytes > appends.size_bytes_max:
                    self._wait_for_disk()
                    break
                if fast is not None:
                    entry = fast.accept(data, position, frame_end, api_version, correlation_id, now_ms)
                    if entry is not None:
                        fast_count += 1
                        if entry[3] is not None:
                            in_flight.append(entry)
                        else:
                            entry[0].partition.unanswered[self] = entry[2]
                        position = frame_end
                        continue
            elif in_flight and not self._finish_produces():
                break
            elif api_key == _OFFSET_COMMIT and self._fast_commit is not None:
                answer = self._fast_commit.accept(data, position, frame_end, api_version, correlation_id)
                if answer is not None:
                    in_flight.append(answer)
                    answer.on_complete(self._complete_commit)
                    if not answer.is_done:
                        self._exclusive = answer
                    position = frame_end
                    continue
            self._handle(data[position + 4 : frame_end], None)
            if fast is not self._fast_produce:
                fast = self._fast_produce
                now_ms = self._connections.now_ms()
            position = frame_end
            if self._refused:
                break
            if api_key != _PRODUCE and self._exclusive is None:
                # Sent before the next one is looked at: large answers are held one at a time.
                self._drain()
                if self._read_memory_bytes >= TURN_SIZE_BYTES:
                    self._yields = True
                    self._connections.loop.call_soon(self._take_turn)
                self._flush()
        if not self.closed:
            self._finish_pass()
            if end - position >= 4:
                (size,) = _LENGTH.unpack_from(data, position)
                if not _FRAME_SIZE_MIN <= size <= size_max:
                    self.refuse(f"it sent a frame of {size} bytes; socket.request.max.bytes is {size_max}")
            if fast_count and fast is not None:
                fast.count(fast_count, (_monotonic_ns() - now_ns) // 1000)
        self._busy = False
        if position:
            self._bulk = False
        if self._refused:
            self._continue()
            return end
        return end if self.closed else position

    def _process_frame(self, frame: FrameBuffer) -> None:
        """Handle one large frame, or hold it until it may be."""
        if self._is_blocked():
            self._held_frame = frame
            self._pause_reading()
            return
        _, api_key, api_version, correlation_id = _FRAME_START.unpack_from(frame.view, 0)
        if api_key == _PRODUCE and not self._connections.appends.has_room:
            self._wait_for_disk()
            self._held_frame = frame
            self._pause_reading()
            return
        self._bulk = True
        self._busy = True
        now_ns = self.last_active_ns = _monotonic_ns()
        handled = False
        if api_key != _PRODUCE and self._in_flight and not self._finish_produces():
            self._held_frame = frame
            self._busy = False
            self._pause_reading()
            return
        fast = self._fast_produce
        if api_key == _PRODUCE and fast is not None:
            now_ms = self._connections.now_ms()
            entry = fast.accept(frame.view, 0, frame.size, api_version, correlation_id, now_ms, frame)
            if entry is not None:
                self._in_flight.append(entry)
                self._frames_in_flight += 1
                handled = True
        if not handled:
            self._handle(frame.view[4 : frame.size], frame)
        if not self.closed:
            self._finish_pass()
            if handled and fast is not None:
                fast.count(1, (_monotonic_ns() - now_ns) // 1000)
        self._busy = False
        if self._refused:
            self._continue()

    def _is_blocked(self) -> bool:
        """Whether the next request must wait for something: an answer in work, a throttle, the client reading."""
        return (
            self._exclusive is not None
            or self._refused
            or self._yields
            or self._muted_timer is not None
            or self._waits_for_disk
            or len(self._in_flight) >= self._connections.in_flight_count_max
            or (self._frames_in_flight and self._has_enough_frames())
            or (self._unsent and self._unsent_size() > UNSENT_SIZE_BYTES_MAX)
        )

    def _has_enough_frames(self) -> bool:
        # One at a time while memory is half taken: the rest is for receiving.
        pool = self._connections.pool
        return self._frames_in_flight >= IN_FLIGHT_FRAMES_COUNT_MAX or pool.used_bytes > pool.size_bytes_max // 2

    def _handle(self, frame: memoryview, buffer: FrameBuffer | None) -> None:
        """Decode one request and call its handler; a malformed one ends the connection."""
        connections = self._connections
        try:
            header, position = parse_request_header(frame)
            route = connections.routes.get(header.api_key)
            version = header.api_version
            if route is None or version not in route.versions:
                parts = connections.routes.refuse_version(header)
                if parts is None:
                    self._free(buffer)
                    self.refuse(f"it asked for version {version} of API {header.api_key}, which is not served")
                else:
                    self._free(buffer)
                    self._out += parts
                return
            request = route.decode(version, frame, position)
        except WireError as error:
            self._free(buffer)
            self.refuse(f"it sent a malformed request: {error}")
            return
        self.client_id = header.client_id
        context = RequestContext(
            authorizer=connections.broker.authorizer,
            listener=self.listener,
            host=self.host,
            connection_id=self.connection_id,
            principal=self.principal,
            client_id=header.client_id,
            api_key=header.api_key,
            api_version=version,
            correlation_id=header.correlation_id,
            connection=self,
            holds_frame=buffer is not None,
        )
        work = _Request(route, request, context, buffer)
        if header.api_key == _PRODUCE:
            if self._fast_produce is None:
                self._fast_produce = FastProduce(connections.broker, route.metrics)
            self._fast_produce.learn(frame, request, context)
        elif header.api_key == _OFFSET_COMMIT:
            if self._fast_commit is None:
                from millstream.core.broker.fast_commit import FastCommit

                self._fast_commit = FastCommit(connections.broker, route.metrics)
            self._fast_commit.learn(frame, request, context)
        self._in_flight.append(work)
        if buffer is not None:
            self._frames_in_flight += 1
        try:
            result = route.handler(connections.broker, request, context)
        except Exception as error:  # noqa: BLE001  a handler's mistake must not harm another client
            self._answer_error(work, error)
            return
        if isinstance(result, Delayed):
            work.delayed = result
            if header.api_key != _PRODUCE and not result.is_done:
                self._exclusive = work
            result.on_complete(lambda delayed: self._complete(work, delayed))
        else:
            self._answer(work, result)

    def _complete(self, work: _Request, delayed: Delayed[Any]) -> None:
        """A delayed answer is there."""
        if self.closed:
            return
        response = None
        try:
            response = delayed.result()
        except Exception as error:  # noqa: BLE001  as above
            self._answer_error(work, error)
        else:
            self._encode(work, response)
        if self._exclusive is work:
            self._exclusive = None
        if not self._busy:
            self._send_answered()
        if response is not None:
            # Behind the sending: somebody waits for that.
            work.count(response)
        if not self._busy:
            self._continue()

    def _complete_commit(self, answer: Delayed[bytes]) -> None:
        """A commit that FastCommit took is answered."""
        if self.closed:
            return
        self._exclusive = None
        if not self._busy:
            self._send_answered()
        if self._fast_commit is not None:
            self._fast_commit.count(cast("FastAnswer", answer))
        if not self._busy:
            self._continue()

    def _send_answered(self) -> None:
        """Send the answers that are ready, or have that done once the writes of this pass have ended."""
        held = self._connections.held
        if held is None:
            self._drain()
            self._flush()
        else:
            held.append(self)

    def send_held(self) -> None:
        """Send the answers that became ready while others were written."""
        self._drain()
        self._flush()
        self._continue()

    def _answer(self, work: _Request, response: Any) -> None:
        self._encode(work, response)
        work.count(response)

    def _encode(self, work: _Request, response: Any) -> None:
        context = work.context
        if response is None:
            work.parts = []
        else:
            work.parts = work.route.encode(response, context.api_version, context.correlation_id)
        work.delayed = None
        if context.throttle_time_ms:
            self._mute(context.throttle_time_ms)

    def _answer_error(self, work: _Request, error: BaseException) -> None:
        """Answer the error where the response has a place for one, else close: the client asks again."""
        response = error_response(work.route, work.request, work.context, error)
        if response is None:
            work.parts = []
            self.refuse(f"its {work.route.name} request failed: {error!r}")
        else:
            self._answer(work, response)

    def _finish_pass(self) -> None:
        """Write what the pass accepted, and send the answers that are ready."""
        if self._connections.appends.touched:
            self._connections.appends.submit()
        if self._in_flight:
            self._drain()
        if self._out:
            self._flush()

    def _finish_produces(self) -> bool:
        """Try to get all Produce requests answered, since another request stands behind them; whether none is left."""
        self._connections.appends.submit()
        self._drain()
        return not self._in_flight and not self._refused

    def _drain(self) -> None:
        """Move the answers that are ready from the front of `_in_flight` to the output."""
        in_flight = self._in_flight
        out = self._out
        while in_flight:
            entry = in_flight[0]
            if type(entry) is tuple:
                plan, generation, end_offset, response, correlation_id, frame = entry
                partition = plan.partition
                if partition.generation != generation:
                    out.append(plan.failed_response(correlation_id))
                    if frame is not None:
                        self._frames_in_flight -= 1
                        self._connections.pool.free(frame, reusable=False)
                elif (partition.high_watermark if plan.acks == -1 else partition.acked_end_offset) >= end_offset:
                    out.append(response)
                    if frame is not None:
                        self._frames_in_flight -= 1
                        self._connections.pool.free(frame)
                else:
                    partition.when_acked(self._handle_acked)
                    break
            else:
                if entry.parts is None:
                    break
                out += entry.parts
                if entry.frame is not None:
                    self._frames_in_flight -= 1
                    self._connections.pool.free(entry.frame, reusable=False)
            in_flight.popleft()

    def _handle_acked(self) -> None:
        """Offsets moved on the partition that the oldest Produce waits for."""
        if not self.closed and not self._busy:
            self._drain()
            self._flush()
            self._continue()

    def _wait_for_disk(self) -> None:
        self._waits_for_disk = True
        self._connections.appends.when_room(self._handle_room)

    def _handle_room(self) -> None:
        """Some of what was accepted has been written."""
        self._waits_for_disk = False
        self._continue()

    def _mute(self, throttle_time_ms: int) -> None:
        if self._muted_timer is None:
            self._muted_timer = self._connections.loop.call_later(throttle_time_ms / 1000, self._unmute)

    def _unmute(self) -> None:
        self._muted_timer = None
        self._continue()

    def _take_turn(self) -> None:
        self._yields = False
        if self._held_frame is not None or self._kept:
            # The loop calls this, so what was kept need not wait for one more of its rounds.
            self._process_kept()
        else:
            self._continue()

    def _handle_kept(self) -> None:
        if not self._in_flight:
            # What blocked them may have ended in the very pass that kept them: nobody would call again.
            self._continue()

    def _continue(self) -> None:
        """Go on with kept frames, then with reading, if nothing blocks that any more."""
        if self._refused:
            if not self._in_flight and not self._unsent:
                self.close()
            return
        if self._reading or self.closed or self._busy or self._is_blocked():
            return
        if self._held_frame is not None or self._kept:
            # Not from here: whoever completed the answer may stand deep in another connection's pass.
            self._connections.loop.call_soon(self._process_kept)
        else:
            self._resume_reading()

    # The end

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in work for the client."""
        return not self._in_flight and not self._unsent

    def close_gracefully(self) -> None:
        """Handle nothing more; close once what was accepted is answered. What waits in purgatory is not waited for."""
        if self.closed:
            return
        self._refused = True
        self._pause_reading()
        if self._exclusive is not None:
            self.close()
            return
        self._connections.appends.submit()
        self._drain()
        self._flush()
        self._continue()

    def refuse(self, reason: str) -> None:
        """Handle nothing more, say why in the log, and close once what was accepted before is answered."""
        if self.closed or self._refused:
            return
        self._refused = True
        self._connections.report_refused(self, reason)
        self._pause_reading()
        self._connections.appends.submit()
        self._drain()
        self._flush()
        self._continue()

    def _drop(self, reason: str) -> None:
        self._connections.report_refused(self, reason)
        self.close()

    def _break_off(self, reason: str) -> None:
        self._refused = True
        self._connections.report_refused(self, reason)
        self.close(abort=True)

    def close(self, *, abort: bool = False) -> None:
        """Drop the connection and whatever is unsent; with `abort` the client is not to take it for a proper end."""
        if self.closed:
            return
        if self._out:
            self._flush()
        transport = self._transport
        abort = abort or self._unsent
        self._end()
        if transport is not None:
            if abort:
                transport.abort()
            else:
                transport.close()

    def _end(self) -> None:
        if self.closed:
            return
        self.closed = True
        self._connections.remove(self)
        self._release_input()
        self._exclusive = None
        in_flight, self._in_flight = self._in_flight, deque()
        for entry in in_flight:
            frame = entry[5] if type(entry) is tuple else entry.frame
            self._free(frame)
            if type(entry) is not tuple and entry.delayed is not None:
                entry.delayed.cancel()
        self._release_read_memory()
        if self._muted_timer is not None:
            self._muted_timer.cancel()
            self._muted_timer = None
        if self._waits_for_disk:
            self._connections.appends.forget_waiter(self._handle_room)
        self._transport = None

    def _free(self, frame: FrameBuffer | None) -> None:
        if frame is not None:
            self._connections.pool.free(frame, reusable=False)
