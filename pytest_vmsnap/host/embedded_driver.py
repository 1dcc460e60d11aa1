"""libvirt's QEMU driver in this process (libvirt.org, "QEMU driver": ``qemu:///embed``)."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterator

# no daemon has prepared cgroups, namespaces or a log daemon for us; QEMU runs as the current user
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


# libvirt's cache of the capabilities of each QEMU, which it gets by starting that QEMU; libvirt itself checks
# whether an entry is still valid
CACHE = Path("cache/qemu/capabilities")


def prepare(root: Path, *, learned: Path) -> str:
    """Make `root` the driver's own directory; return the URI to open.

    `learned` is where `keep_learned` keeps the results of earlier runs: they save libvirt 2 s of asking QEMU.
    """
    (root / "etc").mkdir()
    (root / "etc" / "qemu.conf").write_text(CONFIGURATION)
    (root / CACHE).mkdir(parents=True)
    for path in learned.glob("*.xml"):  # another run may replace one at the same time
        shutil.copyfile(path, root / CACHE / path.name)
    return f"qemu:///embed?root={quote(str(root))}"


def keep_learned(root: Path, *, learned: Path) -> None:
    """Keep what libvirt has learned about QEMU in this run in the directory `learned`, for later runs."""
    learned.mkdir(exist_ok=True)
    for path in (root / CACHE).glob("*.xml"):
        target = learned / path.name
        if not target.exists() or target.read_bytes() != path.read_bytes():
            draft = target.with_suffix(f".{os.getpid()}")
            shutil.copyfile(path, draft)
            draft.replace(target)  # atomic: another run may read it now


@contextmanager
def logs_to(path: Path) -> Iterator[None]:
    """Load libvirt in this block to log its warnings to `path`; else the driver prints them to our stderr.

    libvirt reads the variable once, when it is initialised (libvirt.org, "Logging in the library").
    """
    name = "LIBVIRT_LOG_OUTPUTS"
    if name in os.environ:  # the user wants them elsewhere
        yield
        return
    os.environ[name] = f"3:file:{path}"
    try:
        yield
    finally:
        del os.environ[name]
