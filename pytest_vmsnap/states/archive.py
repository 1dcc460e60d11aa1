"""A snapshot as one self-contained file, to copy to another host.

The file is a tar archive compressed with zstd (RFC 8878). Its first member, ``snapshot.json``, has the
snapshot's metadata, and lists the other members with their sizes and SHA-256.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_vmsnap.errors import StoreDamaged, StoreError, StoreFormat
from pytest_vmsnap.fork import flatten, references_of
from pytest_vmsnap.states import entries
from pytest_vmsnap.states.entries import DEVICES, META, RAM

if sys.version_info >= (3, 14):
    import tarfile
else:
    from backports.zstd import tarfile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_vmsnap.store import Store

FORMAT = 1
CONTENTS = "snapshot.json"
PIECE = 64 << 10  # bytes; a piece of zeros becomes a hole
ZEROS = bytes(PIECE)
BOOT = ("kernel", "initrd")
MUST_MATCH = ("QEMU", "accelerator", "CPU")  # must be the same on both hosts, or the memory cannot be loaded


def export(store: Store, entry: Path, target: Path) -> None:
    """Write the snapshot in the directory `entry` of the store to the new file `target`.

    Raises `StoreError` if `target` already exists or its directory does not, `StoreDamaged` if the snapshot is
    incomplete.
    """
    expect_new(target)
    snapshot = entries.load(store, entry)
    with tempfile.TemporaryDirectory(prefix=".vmsnap-", dir=target.absolute().parent) as name:
        scratch = Path(name)
        files = {RAM: snapshot.memory.file().path, DEVICES: snapshot.devices}
        for disk in snapshot.disks:
            files[disk.name] = flatten(disk, scratch / disk.name)
        files |= {kind: path for kind in BOOT if (path := getattr(snapshot.image, kind))}
        meta = json.loads((entry / META).read_text())
        meta["image"] |= {kind: kind if kind in files else None for kind in BOOT} | {
            "disk": None,
            "modules": None,
        }
        meta["origin"]["parent"] = None
        contents = {
            "format": FORMAT,
            "key": entry.name,
            "meta": meta | {"full": True},
            "files": {name: noted(path) for name, path in files.items()},
        }
        draft = scratch / "draft"
        with tarfile.open(draft, "w:zst") as archive:
            add(archive, CONTENTS, json.dumps(contents, indent=1).encode())
            for member, path in files.items():
                archive.add(path, arcname=member, filter=anonymous)
        draft.rename(target)


def import_(store: Store, source: Path, *, here: dict[str, str]) -> Path:
    """Import the snapshot in the file `source` into the store; returns the directory of its entry.

    `here` is `entries.made_from` for this host. Raises `StoreError` if the file cannot be read or its memory
    cannot be loaded on this host, `StoreDamaged` if the file is not what `export` wrote, `StoreFormat` if
    another version wrote it.
    """
    contents = _contents(source)
    made_from = contents["meta"]["origin"]["made_from"]
    other = [name for name in MUST_MATCH if made_from.get(name) != here.get(name)]
    if other:
        words = "; ".join(
            f"its {name} is {made_from.get(name)}, this host's is {here.get(name)}" for name in other
        )
        raise StoreError(
            f"the memory in {source} cannot be loaded on this host: {words}",
            hint=f"you can import its disk: vmsnap import {source} --disk-only OUT.qcow2",
        )

    def fill(draft: Path) -> None:
        writable = () if contents["meta"]["abilities"]["sealed_memory"] else (entries.RAM,)  # see Template.save
        for name in unpacked(source, contents, draft):
            (draft / name).chmod(0o600 if name in writable else 0o400)
        for name in contents["meta"]["disks"]:
            if found := references_of(draft / name):
                raise StoreDamaged(f"the disk {name} in {source} refers to a file outside of it: {found[0]}")
        meta = contents["meta"]
        place = store.path / entries.KIND / contents["key"]
        meta["image"] |= {
            kind: os.path.relpath(place / kind, store.path) for kind in BOOT if kind in contents["files"]
        }
        (draft / META).write_text(json.dumps(meta, indent=1) + "\n")

    return store.provide(entries.KIND, contents["key"], f"state in {source}", fill)


def extract_disk(source: Path, target: Path) -> None:
    """Write the first disk of the snapshot in the file `source` to the new file `target`.

    Raises `StoreError` if `target` exists or the snapshot has no disk, and as `import_` does for the file.
    """
    expect_new(target)
    contents = _contents(source)
    meta = contents["meta"]
    disks = meta["disks"] if meta["image"].get("firmware", "bios") == "bios" else meta["disks"][:-1]
    if not disks:
        raise StoreError(f"the state in {source} has no disk")
    with tempfile.TemporaryDirectory(prefix=".vmsnap-", dir=target.absolute().parent) as name:
        wanted = contents | {"files": {disks[0]: contents["files"][disks[0]]}}
        list(unpacked(source, wanted, Path(name)))
        if found := references_of(Path(name) / disks[0]):
            raise StoreDamaged(f"the disk in {source} refers to a file outside of it: {found[0]}")
        (Path(name) / disks[0]).rename(target)


def expect_new(target: Path) -> None:
    if target.exists():
        raise StoreError(
            f"{target} already exists", hint="name a file that does not exist: vmsnap overwrites nothing"
        )
    if not target.absolute().parent.is_dir():
        raise StoreError(f"there is no directory {target.absolute().parent}")


def _contents(source: Path) -> dict[str, Any]:
    """The content of ``snapshot.json`` in the file `source`, checked as far as possible without the rest."""
    try:
        with tarfile.open(source, "r:zst") as archive:
            first = archive.next()
            if first is None or first.name != CONTENTS or not first.isreg():
                raise StoreDamaged(f"{source} is not a file that `vmsnap export` wrote")
            found: dict[str, Any] = json.load(opened(archive, first))
    except OSError as error:
        raise StoreError(f"{source} cannot be read: {error.strerror or error}") from error
    except (tarfile.TarError, ValueError, EOFError) as error:
        raise StoreDamaged(f"{source} is not a file that `vmsnap export` wrote: {error}") from error
    if found.get("format") != FORMAT:
        raise StoreFormat(
            f"{source} has format {found.get('format')}; this version of pytest-vmsnap reads format {FORMAT}"
        )
    disks = set(found["meta"]["disks"])
    allowed = {RAM, DEVICES, *BOOT, *disks}
    names = set(found["files"])
    strange = {name for name in names if name not in allowed or "/" in name or name.startswith(".")}
    if strange or not {RAM, DEVICES, *disks} <= names:
        raise StoreDamaged(f"the files in {source} are not those of a snapshot: {', '.join(sorted(names))}")
    if not str(found["key"]).isalnum():
        raise StoreDamaged(f"{source} has an invalid key: {found['key']!r}")
    return found


def unpacked(source: Path, contents: dict[str, Any], directory: Path) -> Iterator[str]:
    """Write the files that `contents` lists to `directory`, check their SHA-256, and yield their names."""
    missing = dict(contents["files"])
    try:
        with tarfile.open(source, "r:zst") as archive:
            for member in archive:
                if member.name == CONTENTS or (expected := missing.pop(member.name, None)) is None:
                    continue
                if not member.isreg() or member.size != expected["size"]:
                    raise StoreDamaged(f"{member.name} in {source} is not the file that was exported")
                digest = _write(opened(archive, member), directory / member.name)
                if digest != expected["sha256"]:
                    raise StoreDamaged(f"the content of {member.name} in {source} is not what was exported")
                yield member.name
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise StoreDamaged(f"{source} is damaged: {error}") from error
    if missing:
        raise StoreDamaged(f"{source} lacks {', '.join(sorted(missing))}")


def _write(reading: Any, target: Path) -> str:
    """Copy to the new file `target`, with holes in place of zeros; returns the SHA-256."""
    digest = hashlib.sha256()
    target.touch(mode=0o600, exist_ok=False)
    with target.open("wb") as writing:
        while piece := reading.read(PIECE):
            digest.update(piece)
            if piece == ZEROS[: len(piece)]:
                writing.seek(len(piece), io.SEEK_CUR)
            else:
                writing.write(piece)
        writing.truncate(writing.tell())
    return digest.hexdigest()


def opened(archive: Any, member: Any) -> Any:
    found = archive.extractfile(member)
    if found is None:
        raise StoreDamaged(f"{member.name} is not a regular file")
    return found


def noted(path: Path) -> dict[str, object]:
    with path.open("rb") as file:
        return {"size": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def add(archive: Any, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(anonymous(member), io.BytesIO(data))


def anonymous(member: Any) -> Any:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    member.mode = 0o600
    return member
