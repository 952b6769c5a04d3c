"""The breaker of a destination: after some failures in a row nothing is sent for a while, then one probe."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from headrace.domain.times import SECOND_US

_ASK_AGAIN_US = SECOND_US // 2


class BreakerState(IntEnum):
    """What a breaker lets through; the number is what the metric shows."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


@dataclass(slots=True)
class Breaker:
    """Counts failures of the vendor as a whole (no answer, 5xx), not refusals of single items.

    Attributes:
        threshold: Failures in a row that open it.
        first_wait_s: How long it stays open the first time, in seconds; doubled by each failed probe.
        longest_wait_s: Longest time it stays open, in seconds.
    """

    threshold: int = 5
    first_wait_s: float = 1.0
    longest_wait_s: float = 60.0
    failures: int = 0
    _reopened: int = 0
    _open_until_us: int = 0
    _probing: bool = False

    def state(self, now_us: int) -> BreakerState:
        """The state at a moment in microseconds."""
        if self.failures < self.threshold:
            return BreakerState.CLOSED
        return BreakerState.OPEN if now_us < self._open_until_us else BreakerState.HALF_OPEN

    def wait_us(self, now_us: int) -> int:
        """Microseconds until it lets something through, or until it is to be asked again; 0 when now.

        While a probe has no answer yet nothing else goes, and nothing is worth being made ready.
        """
        state = self.state(now_us)
        if state is BreakerState.OPEN:
            return self._open_until_us - now_us
        return _ASK_AGAIN_US if state is BreakerState.HALF_OPEN and self._probing else 0

    def admit(self, now_us: int) -> int:
        """Ask to send; 0 means go ahead, else ask again after that many microseconds.

        In HALF_OPEN only one caller at a time is let through; it must report by succeeded, failed or withdrawn.
        """
        wait_us = self.wait_us(now_us)
        if not wait_us and self.state(now_us) is BreakerState.HALF_OPEN:
            self._probing = True
        return wait_us

    def succeeded(self) -> None:
        """The vendor answered."""
        self.failures = 0
        self._reopened = 0
        self._probing = False

    def failed(self, now_us: int) -> None:
        """The vendor failed as a whole."""
        was_open = self.failures >= self.threshold
        if was_open and not self._probing:
            return  # sent before it opened: says nothing new
        self._probing = False
        self.failures += 1
        if self.failures >= self.threshold:
            wait_s = min(self.longest_wait_s, self.first_wait_s * 2**self._reopened)
            self._open_until_us = now_us + int(wait_s * SECOND_US)
            self._reopened = min(self._reopened + 1, 30)

    def withdrawn(self) -> None:
        """What was admitted was not sent after all: the next may probe."""
        self._probing = False
