"""What a way into a guest is."""

from __future__ import annotations

from typing import Protocol


class Way(Protocol):
    """A way into a guest in which a channel's part is not planted yet."""

    name: str

    def is_ready(self) -> bool:
        """Whether it can be gone now; false while the guest boots. Takes a few seconds at most."""

    def plant(self, script: str, *, timeout: float) -> None:
        """Run `script` as root; `timeout` in seconds. Raises `ChannelError` where that fails."""

    def problem(self) -> str:
        """Why it was not ready in the end, in words for the person who made the image."""

    def close(self) -> None:
        """Let go of the guest."""
