"""The manifest of an entry: what its files were when it was built."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import StoreDamaged
from pytest_vmsnap.host import write_whole
from pytest_vmsnap.store.fingerprint import Fingerprint, fingerprint, stat_fingerprint

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

NAME = "manifest.json"
SMALL = 4 << 20  # bytes; reading them takes some milliseconds
USED = "used"  # its mtime is when the entry was last used
BUILT = "built"  # its mtime is when the entry was built
PULLED = "pulled"  # it is there if the entry was not built on this host
MARKS = (NAME, USED, BUILT, PULLED, "needs")  # what only the store itself writes


def write(entry: Path, *, checksums: bool, known: Mapping[str, int] | None = None) -> None:
    """Write the manifest of the files in `entry`; with `checksums`, this reads all that are not `known`."""
    take = fingerprint if checksums else stat_fingerprint
    known = known or {}
    _write(
        entry,
        {
            name: replace(stat_fingerprint(entry / name), checksum=known[name])
            if name in known
            else take(entry / name)
            for name in _names(entry)
        },
    )


def check(entry: Path) -> None:
    """Prove that the files in `entry` are those that were saved; does nothing without a manifest.

    A file with another time is read, and its new time recorded: the store may have been copied. Small files
    are always read: a device state with flipped bytes may load without an error.

    Raises `StoreDamaged` with what is wrong.
    """
    if not (entry / NAME).exists():
        return
    noted = read(entry)
    if strangers := set(_names(entry)) - set(noted):
        raise StoreDamaged(
            f"{entry} contains {', '.join(sorted(strangers))}, which the plugin did not save there"
        )
    found = {name: each.renewed() for name, each in noted.items()}
    for each in found.values():
        if each.size <= SMALL:
            each.expect_content()
    if found != noted:
        _write(entry, found)


def verify(entry: Path) -> None:
    """Prove by their checksums that the files in `entry` are those that were saved; reads all of them.

    Does nothing without a manifest. Raises `StoreDamaged` with what is wrong.
    """
    if not (entry / NAME).exists():
        return
    for each in read(entry).values():
        each.expect_content()


def read(entry: Path) -> dict[str, Fingerprint]:
    """The fingerprints of the files in `entry`, by name; raises `StoreDamaged` if they cannot be read."""
    try:
        noted = json.loads((entry / NAME).read_text())
        return {
            name: Fingerprint(path=entry / name, size=size, changed=changed, checksum=checksum)
            for name, (size, changed, checksum) in noted.items()
        }
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise StoreDamaged(f"{entry / NAME} cannot be read: {error}") from error


def _names(entry: Path) -> list[str]:
    found = (str(path.relative_to(entry)) for path in entry.rglob("*") if path.is_file())
    return sorted(
        name for name in found if name not in (NAME, USED, BUILT, PULLED) and not name.startswith(f".{NAME}")
    )


def _write(entry: Path, fingerprints: dict[str, Fingerprint]) -> None:
    rows = {name: (each.size, each.changed, each.checksum) for name, each in fingerprints.items()}
    write_whole(entry / NAME, json.dumps(rows, indent=1) + "\n")
