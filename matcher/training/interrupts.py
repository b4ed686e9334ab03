"""Ctrl-C and SIGTERM as a wish that is granted between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Interrupted", "StopWish", "stop_wishes"]


class Interrupted(KeyboardInterrupt):
    """A run that was asked to stop, after its state was saved.

    Args:
        signal_number: what asked.
        step: the step that was saved.
    """

    def __init__(self, signal_number: int, step: int) -> None:
        self.signal_number = signal_number
        self.step = step
        super().__init__(f"stopped after step {step}")


class StopWish:
    """Whether a signal asked to stop, and which; 0: none."""

    def __init__(self) -> None:
        self.signal_number = 0

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Note the first signal; a second one interrupts at once."""
        if self.signal_number:
            raise KeyboardInterrupt
        self.signal_number = number


@contextmanager
def stop_wishes() -> Iterator[StopWish]:
    """Inside, SIGINT and SIGTERM are noted; outside the main thread they are left as they are."""
    wish = StopWish()
    if threading.current_thread() is not threading.main_thread():
        yield wish
        return
    before = {
        number: signal.signal(number, wish.receive) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield wish
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
