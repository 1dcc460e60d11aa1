"""The peak of this process's memory while something runs."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def _kib(name: str) -> int:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[name].split()[0])


class Peak:
    """How many MiB the process's resident memory grew above what it was, at its highest."""

    mib = 0.0


@contextmanager
def peak() -> Iterator[Peak]:
    """Measure the ``with`` block; `mib` is there at its end (proc(5): 5 to ``clear_refs`` resets ``VmHWM``)."""
    found = Peak()
    Path("/proc/self/clear_refs").write_text("5")
    before = _kib("VmRSS")
    yield found
    found.mib = (_kib("VmHWM") - before) / 1024
