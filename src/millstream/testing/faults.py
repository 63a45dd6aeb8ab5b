"""What can happen to a connection, and plans of when it does: by script or by seed. For `FaultProxy`.

A fault strikes a frame (one request, or one answer) or a connection as it is accepted:

    Drop      the connection is closed before the frame passes            of a connection: accepted and closed at once
    Cut       a part of the frame passes, then the connection is closed
    Delay     the frame passes later, and what follows it waits behind it
    Hold      the frame passes after frames of other connections that came later
    Silence   neither the frame nor what follows it passes, in this direction; the connection stays open.
              On a request: the broker never sees it. On an answer: it was done, and nobody hears of it.
              Of a connection: half-open, it is accepted and never answers

A plan is asked once for every connection and every frame, in the order of their coming, on the proxy's thread.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple, Protocol


class Direction(Enum):
    """Which way a frame goes."""

    REQUEST = "request"
    ANSWER = "answer"


class Frame(NamedTuple):
    """One frame on its way. Connections are counted from 0 as they come, frames from 0 in each direction of each."""

    connection: int
    direction: Direction
    number: int
    # Of the request, and of the request that is answered; -1 for an answer to nothing that was asked.
    api_key: int
    api_version: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Drop:
    """Close before the frame; with `reset` the peers get a reset (RST) instead of an end of the stream."""

    reset: bool = False


@dataclass(frozen=True, slots=True)
class Cut:
    """Let `share` of the frame pass, its length included and never all of it, then close."""

    share: float = 0.5
    reset: bool = False


@dataclass(frozen=True, slots=True)
class Delay:
    """Pass `seconds` later."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Hold:
    """Pass when `frames` frames of other connections have passed, or after `seconds_max`."""

    frames: int = 1
    seconds_max: float = 1.0


@dataclass(frozen=True, slots=True)
class Silence:
    """Let nothing pass any more, in this direction."""


Fault = Drop | Cut | Delay | Hold | Silence


class Faults(Protocol):
    """A plan of faults."""

    def of_connection(self, number: int) -> Fault | None:
        """What happens to a connection as it is accepted: Drop, Delay or Silence; None: nothing."""
        ...

    def of_frame(self, frame: Frame) -> Fault | None:
        """What happens to a frame; None: it passes."""
        ...


class NoFaults:
    """Everything passes."""

    def of_connection(self, number: int) -> Fault | None:  # noqa: ARG002
        """Nothing."""
        return None

    def of_frame(self, frame: Frame) -> Fault | None:  # noqa: ARG002
        """Nothing."""
        return None


NO_FAULTS: Final = NoFaults()
# Those that end what a connection is good for are rare among those that only disturb it.
WEIGHTS: Final[Mapping[type[Fault], float]] = {Drop: 3, Cut: 3, Delay: 6, Hold: 3, Silence: 1}


class RandomFaults:
    """Faults at random: of each frame with probability `rate`, of each connection with `connection_rate`.

    What happens to a frame is a function of the seed and of the frame's place (connection, direction, number), so a
    seed makes the same plan again whatever the timing; which request comes at which place is up to the client.
    """

    def __init__(
        self,
        seed: int | str,
        *,
        rate: float = 0.05,
        connection_rate: float = 0.02,
        weights: Mapping[type[Fault], float] = WEIGHTS,
        delay_s_max: float = 0.05,
        hold_frames_max: int = 3,
        hold_s_max: float = 0.1,
    ) -> None:
        """Faults are drawn by `weights`; lengths evenly up to the bounds."""
        self.seed = seed
        self._rate = rate
        self._connection_rate = connection_rate
        self._kinds = tuple(weights)
        self._weights = tuple(weights.values())
        self._delay_s_max = delay_s_max
        self._hold_frames_max = hold_frames_max
        self._hold_s_max = hold_s_max

    def of_connection(self, number: int) -> Fault | None:
        """Drop, Silence or Delay, now and then."""
        draw = random.Random(f"{self.seed}/{number}")
        if draw.random() >= self._connection_rate:
            return None
        drop, silence = Drop(reset=draw.random() < 0.5), Silence()
        return draw.choice((drop, silence, Delay(draw.random() * self._delay_s_max)))

    def of_frame(self, frame: Frame) -> Fault | None:
        """One of the kinds, now and then."""
        draw = random.Random(f"{self.seed}/{frame.connection}/{frame.direction.value}/{frame.number}")
        if draw.random() >= self._rate:
            return None
        kind = draw.choices(self._kinds, self._weights)[0]
        if kind is Drop:
            return Drop(reset=draw.random() < 0.5)
        if kind is Cut:
            return Cut(draw.random(), reset=draw.random() < 0.5)
        if kind is Delay:
            return Delay(draw.random() * self._delay_s_max)
        if kind is Hold:
            return Hold(draw.randint(1, self._hold_frames_max), self._hold_s_max)
        return Silence()

    def __repr__(self) -> str:
        return f"RandomFaults({self.seed!r}, rate={self._rate}, connection_rate={self._connection_rate})"


@dataclass(slots=True)
class At:
    """One line of a script: `fault` strikes the frames that match, `times` of them after `skip`. -1, None: any."""

    fault: Fault
    api_key: int = -1
    direction: Direction = Direction.ANSWER
    connection: int = -1
    skip: int = 0
    times: int = 1

    def strikes(self, frame: Frame) -> bool:
        """Whether this frame is meant; counts it if so."""
        if frame.direction is not self.direction or self.times <= 0:
            return False
        if self.api_key not in (-1, frame.api_key) or self.connection not in (-1, frame.connection):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.times -= 1
        return True


class ScriptedFaults:
    """Faults by script: the first line that matches a frame strikes it; `connections` by the connection's number."""

    def __init__(self, *lines: At, connections: Mapping[int, Fault] | None = None) -> None:
        self.lines: Sequence[At] = lines
        self._connections = dict(connections or {})

    def of_connection(self, number: int) -> Fault | None:
        """What the script has for it."""
        return self._connections.get(number)

    def of_frame(self, frame: Frame) -> Fault | None:
        """What the first matching line has for it."""
        return next((line.fault for line in self.lines if line.strikes(frame)), None)

    @property
    def is_over(self) -> bool:
        """Whether every line has struck as often as it says."""
        return all(line.times <= 0 for line in self.lines)
