"""Run helper programs to their end."""

from __future__ import annotations

import errno
import os
import subprocess
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import ImageError, tail

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# These contain mke2fs, and are not in an ordinary user's PATH on Debian.
SYSTEM_DIRECTORIES = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def environment(**more: str) -> Mapping[str, str]:
    """The environment for helper programs: messages in English, system directories on PATH; plus `more`."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *SYSTEM_DIRECTORIES])
    return {**os.environ, "PATH": path, "LC_ALL": "C.UTF-8", **more}


def run(
    command: Sequence[str], *, failed: str, hint: str = "", install: str = "", accept: Sequence[int] = (0,)
) -> str:
    """Run `command` to its end and return its stdout.

    `failed` is the error's message and `hint` its hint if the exit status is not in `accept`; `install` is the
    hint if the program is missing.

    Raises `ImageError` with the last lines of its stderr, `OSError` if there is no space left.
    """
    try:
        done = subprocess.run(
            command, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise ImageError(f"{command[0]} is missing", hint=install) from error
    if done.returncode not in accept:
        words = tail(done.stderr or done.stdout, 5)
        if os.strerror(errno.ENOSPC) in words:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise ImageError(f"{failed}\n{words}".rstrip(), hint=hint)
    return done.stdout
