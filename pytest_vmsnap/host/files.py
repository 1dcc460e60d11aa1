"""Files that appear when all of their content is there: whoever reads them finds the whole or nothing."""

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
    """A file to write to that becomes `path` at the end of the ``with`` block, unless that raises.

    A new file has `mode`, less the umask. What is no regular file, a device say, is written to as it is. Raises
    `OSError` where it cannot be written.
    """
    target = Path(path)
    if target.exists() and not target.is_file():
        with target.open("wb") as file:
            yield file
        return
    target = target.resolve()  # what a link points to is replaced, not the link
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
    """Write a file that several processes may write and read at once; only this user may read it."""
    with replacing(path, mode=0o600) as file:
        file.write(text.encode())


def beside(target: Path) -> Path:
    """A name beside `target` that nobody has."""
    return target.with_name(f".{target.name[:200]}.vmsnap-{secrets.token_hex(4)}")
