"""A cluster as one self-contained file: a tar archive of its machines' files, and what joins them.

Its first member, ``cluster.json``, has the cluster's metadata, and lists the machines' files with their sizes
and SHA-256. Each of these is as `archive` describes it.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_vmsnap.errors import StoreDamaged, StoreError, StoreFormat
from pytest_vmsnap.states import archive, entries
from pytest_vmsnap.states.archive import add, anonymous, expect_new, noted, opened, unpacked
from pytest_vmsnap.states.entries import META
from pytest_vmsnap.store import EntryName

if sys.version_info >= (3, 14):
    import tarfile
else:
    from backports.zstd import tarfile

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_vmsnap.store import Store

FORMAT = 1
CONTENTS = "cluster.json"


def export(store: Store, entry: Path, target: Path) -> None:
    """Write the state of a machine or a cluster, in the directory `entry` of the store, to the file `target`.

    Raises as `archive.export`.
    """
    if not (members := entries.members_of(entry)):
        archive.export(store, entry, target)
        return
    expect_new(target)
    with tempfile.TemporaryDirectory(prefix=".vmsnap-", dir=target.absolute().parent) as name:
        scratch = Path(name)
        files = {}
        for machine, key in members.items():
            files[machine] = scratch / f"{machine}.vmsnap"
            archive.export(store, store.place(EntryName(kind=entries.KIND, key=key)), files[machine])
        meta = json.loads((entry / META).read_text())
        meta["origin"]["parent"] = None
        contents = {
            "format": FORMAT,
            "key": entry.name,
            "meta": meta,
            "files": {path.name: noted(path) for path in files.values()},
        }
        draft = scratch / "draft"
        with tarfile.open(draft, "w:zst") as whole:
            add(whole, CONTENTS, json.dumps(contents, indent=1).encode())
            for path in files.values():
                whole.add(path, arcname=path.name, filter=anonymous)
        draft.rename(target)


def import_(store: Store, source: Path, *, here: dict[str, str]) -> Path:
    """Import the state in the file `source`, of a machine or a cluster; return the directory of its entry.

    Raises as `archive.import_`.
    """
    if not (contents := _contents(source)):
        return archive.import_(store, source, here=here)
    members: dict[str, str] = contents["meta"]["members"]

    def fill(draft: Path) -> Iterable[EntryName]:
        with tempfile.TemporaryDirectory(prefix=".import-", dir=store.path / "locks") as scratch:
            for name in unpacked(source, contents, Path(scratch)):
                machine = name.removesuffix(".vmsnap")
                entry = archive.import_(store, Path(scratch) / name, here=here)
                if entry.name != members[machine]:
                    raise StoreDamaged(f"the machine {machine} in {source} is not the one of this cluster")
                (Path(scratch) / name).unlink()
        (draft / META).write_text(json.dumps(contents["meta"], indent=1) + "\n")
        return [EntryName(kind=entries.KIND, key=key) for key in members.values()]

    return store.provide(entries.KIND, contents["key"], f"cluster in {source}", fill)


def _contents(source: Path) -> dict[str, Any] | None:
    """The content of ``cluster.json`` in the file `source`; None if it is not the file of a cluster."""
    try:
        with tarfile.open(source, "r:zst") as whole:
            first = whole.next()
            if first is None or first.name != CONTENTS or not first.isreg():
                return None
            found: dict[str, Any] = json.load(opened(whole, first))
    except OSError as error:
        raise StoreError(f"{source} cannot be read: {error.strerror or error}") from error
    except (tarfile.TarError, ValueError, EOFError):
        return None  # the importer of machines says what it is
    if found.get("format") != FORMAT:
        raise StoreFormat(
            f"{source} has format {found.get('format')}; this version of pytest-vmsnap reads format {FORMAT}"
        )
    try:
        members = found["meta"]["members"]
        right = set(found["files"]) == {f"{machine}.vmsnap" for machine in members}
        right = right and all(machine.replace("-", "").isalnum() for machine in members)
        right = right and all(str(key).isalnum() for key in (found["key"], *members.values()))
    except (KeyError, TypeError, AttributeError) as error:
        raise StoreDamaged(f"{source} is not a file that `vmsnap export` wrote: {error!r}") from error
    if not right:
        raise StoreDamaged(f"the files in {source} are not those of a cluster")
    return found
