"""A person at a terminal."""

from __future__ import annotations

import os
import re
import select
import time

import pytest


class Person:
    """Whoever sits at the terminal: types, and reads what is shown."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self._descriptor, text.encode())

    def wait(self, pattern: str, seconds: float = 90.0) -> None:
        """Until it is shown, behind what was waited for before."""
        deadline = time.monotonic() + seconds
        while not (found := re.search(pattern, self.seen)):
            assert time.monotonic() < deadline, f"{pattern!r} is not in {self.seen[-2000:]!r}"
            if select.select([self._descriptor], [], [], 1.0)[0]:
                try:
                    self.seen += os.read(self._descriptor, 1 << 16).decode(errors="replace")
                except OSError:  # the process has ended
                    pytest.fail(f"{pattern!r} is not in {self.seen[-2000:]!r}")
        self.seen = self.seen[found.end() :]
