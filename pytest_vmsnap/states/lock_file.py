"""``vmsnap.lock``: the digests that what comes from a registry must have."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import StoreError
from pytest_vmsnap.host import replacing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FILE = "vmsnap.lock"
TABLE = "registry"
HEAD = "# Written by `vmsnap lock`. With this file, a run pulls nothing else from the registry.\n"


def read_lock(root: Path) -> dict[str, str] | None:
    """The digests by tag in the lock file of the project at `root`; None without a file.

    Raises `StoreError` if the file is not valid.
    """
    path = root / FILE
    try:
        found = tomllib.loads(path.read_text())
        pins = {str(tag): str(digest) for tag, digest in found[TABLE].items()}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise StoreError(
            f"{path} cannot be read: {error}", hint="`vmsnap lock` writes it; it has a table [registry]"
        ) from error
    if wrong := [digest for digest in pins.values() if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest)]:
        raise StoreError(
            f"{path} has {wrong[0]!r}, which is not a digest", hint="`vmsnap lock` writes the file"
        )
    return pins


def write_lock(root: Path, pins: Mapping[str, str]) -> Path:
    """Write the lock file of the project at `root`; returns its path."""
    rows = "".join(f'"{tag}" = "{digest}"\n' for tag, digest in sorted(pins.items()))
    with replacing(root / FILE) as file:
        file.write(f"{HEAD}[{TABLE}]\n{rows}".encode())
    return root / FILE
