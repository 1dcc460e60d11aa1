"""The protocol of installation methods."""

from __future__ import annotations

from typing import Protocol

from pytest_vmsnap.errors import ChannelError


class LoginRefused(ChannelError):
    """The guest accepts no such user with this password, at least not yet."""


class BootstrapMethod(Protocol):
    """A way into a guest in which the channel is not installed yet."""

    name: str

    def is_ready(self) -> bool:
        """Whether it can be used now; false while the guest boots. Takes a few seconds at most."""

    def run_as_root(self, script: str, *, timeout: float) -> None:
        """Run `script` as root; `timeout` in seconds. Raises `ChannelError` if that fails.

        Raises `LoginRefused` if it may succeed later in the boot, which may set the password.
        """

    def problem(self) -> str:
        """Return why it was never ready, for the person who made the image."""

    def close(self) -> None:
        """Disconnect from the guest."""
