"""libvirt's QEMU driver within this process (libvirt.org, "QEMU driver": ``qemu:///embed``)."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# no daemon has prepared cgroups, namespaces or a log daemon for us; QEMU runs as who we are
CONFIGURATION = """\
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
"""


def prepare(root: Path) -> str:
    """Make `root` the driver's own directory; returns the URI to open."""
    (root / "etc").mkdir()
    (root / "etc" / "qemu.conf").write_text(CONFIGURATION)
    return f"qemu:///embed?root={quote(str(root))}"


@contextmanager
def logs_to(path: Path) -> Iterator[None]:
    """While libvirt is loaded: its warnings go to `path`; the driver would print them on our stderr.

    libvirt reads the variable once, when it is initialised (libvirt.org, "Logging in the library").
    """
    name = "LIBVIRT_LOG_OUTPUTS"
    if name in os.environ:  # the person wants to see them elsewhere
        yield
        return
    os.environ[name] = f"3:file:{path}"
    try:
        yield
    finally:
        del os.environ[name]
