"""Atomic writes: a reader sees either the whole file or none."""

from __future__ import annotations

import os
import secrets
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator
    from os import PathLike


@contextmanager
def replacing(path: str | PathLike[str], *, mode: int = 0o666) -> Iterator[BinaryIO]:
    """Yield a file that replaces `path` at the end of the ``with`` block, unless the block raises.

    A new file gets `mode`, less the umask. If `path` is not a regular file, such as a device, it is written
    directly. Raises `OSError` if it cannot be written.
    """
    target = Path(path)
    if target.exists() and not target.is_file():
        with target.open("wb") as file:
            yield file
        return
    target = target.resolve()  # replace a link's target, not the link
    draft = beside(target)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
        draft.replace(target)
    except BaseException:
        with suppress(OSError):
            draft.unlink()
        raise


def write_whole(path: Path, text: str) -> None:
    """Write `text` to `path` atomically, for several processes at once; only this user may read the file."""
    with replacing(path, mode=0o600) as file:
        file.write(text.encode())


def beside(target: Path) -> Path:
    """An unused name in the directory of `target`."""
    return target.with_name(f".{target.name[:200]}.vmsnap-{secrets.token_hex(4)}")
