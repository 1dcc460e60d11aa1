"""libvirt's QEMU driver within this process (libvirt.org, "QEMU driver": ``qemu:///embed``)."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterator

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


# where libvirt keeps what it has learned of each QEMU by starting it and asking; it checks itself whether
# that still holds
CACHE = Path("cache/qemu/capabilities")


def prepare(root: Path, *, learned: Path) -> str:
    """Make `root` the driver's own directory; returns the URI to open.

    `learned` is what `keep_learned` kept of an earlier run: libvirt need not ask QEMU again, which takes 2 s.
    """
    (root / "etc").mkdir()
    (root / "etc" / "qemu.conf").write_text(CONFIGURATION)
    (root / CACHE).mkdir(parents=True)
    for path in learned.glob("*.xml"):  # another run may replace one meanwhile
        shutil.copyfile(path, root / CACHE / path.name)
    return f"qemu:///embed?root={quote(str(root))}"


def keep_learned(root: Path, *, learned: Path) -> None:
    """Keep for later runs what libvirt has learned of QEMU in this one."""
    learned.mkdir(exist_ok=True)
    for path in (root / CACHE).glob("*.xml"):
        target = learned / path.name
        if not target.exists() or target.read_bytes() != path.read_bytes():
            draft = target.with_suffix(f".{os.getpid()}")
            shutil.copyfile(path, draft)
            draft.replace(target)  # whole or not at all: another run may read it now


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
