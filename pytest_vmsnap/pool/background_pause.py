"""A short pause after a hand-over: background work waits until the test has begun.

The first command of a test takes some milliseconds. A Python thread that computes may hold the interpreter as
long (sys.setswitchinterval, 5 ms), and a QEMU that starts occupies a processor.
"""

from __future__ import annotations

import threading
import time

SECONDS = 0.03


class BackgroundPause:
    """Hand-overs call `begin`; background work calls `wait`; a caller that needs that work now calls `end`."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._until = 0.0

    def begin(self) -> None:
        with self._changed:
            self._until = time.monotonic() + SECONDS

    def end(self) -> None:
        with self._changed:
            self._until = 0.0
            self._changed.notify_all()

    def wait(self) -> None:
        """Wait until the pause is over."""
        with self._changed:
            while (left := self._until - time.monotonic()) > 0:
                self._changed.wait(left)
