"""Clones handed over clean, and thrown away off the tests' path."""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import RevertError, VmsnapError
from pytest_vmsnap.fork import Clone
from pytest_vmsnap.guest import set_clock

if TYPE_CHECKING:
    from pytest_vmsnap.fork import Forge, Snapshot
    from pytest_vmsnap.guest import Access, Channel

log = logging.getLogger("pytest_vmsnap.pool")

ANSWER_SECONDS = 30.0
DISCARDERS = 4  # ending a domain is mostly waiting: up to 2 s where process 1 reaps slowly


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A clone that runs, answers, and is repaired; and the channel to it."""

    clone: Clone
    channel: Channel

    def is_well(self) -> bool:
        """Whether it still runs and answers."""
        if self.clone.domain.condition() != "running":
            return False
        try:
            self.channel.open(timeout=ANSWER_SECONDS)
        except VmsnapError as error:
            log.info("%s is not well: %s", self.clone.name, error)
            return False
        return True


class Pool:
    """Makes clones ready for tests, and ends them in the background.

    `factor` scales its deadlines.
    """

    def __init__(self, forge: Forge, *, access: Access, factor: float) -> None:
        self._forge = forge
        self._access = access
        self._factor = factor
        self._discarders = ThreadPoolExecutor(DISCARDERS, thread_name_prefix="vmsnap-discard")

    def take(self, snapshot: Snapshot) -> Lease:
        """A clean machine in the state of `snapshot`, running and repaired.

        Raises `RevertError` where none can be given; a machine that could not be repaired is not handed out.
        """
        started = time.monotonic()
        clone = Clone(self._forge, snapshot)
        try:
            channel = self._access.channel_to(clone, snapshot.image)
            channel.connect()
            clone.domain.resume()
            channel.open(timeout=ANSWER_SECONDS * self._factor)
            set_clock(channel, timeout=ANSWER_SECONDS * self._factor)
        except RevertError:
            clone.end()
            raise
        except VmsnapError as error:
            clone.end()
            raise RevertError(f"a clean machine could not be made: {error}") from error
        except BaseException:
            clone.end()
            raise
        log.info("%s is ready after %.3f s", clone.name, time.monotonic() - started)
        return Lease(clone=clone, channel=channel)

    def discard(self, lease: Lease) -> None:
        """End a machine in the background."""
        lease.channel.close()
        self._discarders.submit(_end, lease.clone)

    def close(self) -> None:
        """Wait until all that was discarded has ended."""
        self._discarders.shutdown(wait=True)


def _end(clone: Clone) -> None:
    try:
        clone.end()
    except Exception:
        log.exception("%s could not be ended", clone.name)
