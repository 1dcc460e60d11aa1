"""Copies of disks and memory, which are mostly holes."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import HostError

if TYPE_CHECKING:
    from pathlib import Path

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
PRIVATE = 0o600
SMALL = 1 << 20  # bytes; cp takes longer to start


def copy_file(source: Path, target: Path) -> None:
    """Copy the file `source` to `target`: with shared blocks if the file system can, else with holes for zeros.

    The copy has the time of `source`, and only this user may read and write it. Raises `OSError` if the space
    runs out, `HostError` if it cannot be copied for another reason.
    """
    if source.stat().st_size <= SMALL:
        shutil.copyfile(source, target)
        shutil.copystat(source, target)
        target.chmod(PRIVATE)
        return
    command = ["cp", "--reflink=auto", "--sparse=always", "--no-preserve=all", "--preserve=timestamps"]
    done = subprocess.run(
        [*command, "--", str(source), str(target)],
        capture_output=True,
        text=True,
        env=os.environ | {"LC_ALL": "C"},
        check=False,
    )
    if done.returncode:
        for code in NO_ROOM:
            if os.strerror(code) in done.stderr:
                raise OSError(code, os.strerror(code), str(target))
        raise HostError(f"cannot copy {source}: {done.stderr.strip()}")
    target.chmod(PRIVATE)
