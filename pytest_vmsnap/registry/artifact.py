"""An entry of the store as an OCI artifact (OCI image specification 1.1, "Guidelines for Artifact Usage").

The artifact's configuration lists the files of the entry, and the pieces that each consists of; its layers are
these pieces (see `pieces`). A file is cut at fixed places, so what two entries have in common is stored once.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast, get_args

from pytest_vmsnap.errors import RegistryError
from pytest_vmsnap.registry.pieces import LONGEST_PIECE
from pytest_vmsnap.store import EntryName, Kind, read_manifest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FORMAT = 1
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
ARTIFACT_TYPE = "application/vnd.pytest-vmsnap.entry.v1"
CONFIG_TYPE = "application/vnd.pytest-vmsnap.entry.config.v1+json"
PIECE_TYPE = "application/vnd.pytest-vmsnap.piece.v1+zstd"
NAME_ANNOTATION = "org.opencontainers.image.title"
TRAVELLING: tuple[Kind, ...] = ("states", "images", "downloads")  # kinds that go into a registry
MARKS = ("manifest.json", "used", "built", "needs")  # of the store: it writes them itself
OWN_FILES = ("meta.json", "needs")  # of an entry: they name places of the host
LARGEST_FILE = 1 << 44  # bytes
MOST_FILES = 10_000

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A layer: its `digest`, its `size` in bytes, and the `length` in bytes of what it holds, uncompressed."""

    digest: str
    size: int
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FileInRegistry:
    """A file of an entry: its `size` in bytes, the `checksum` of the store's manifest, and its pieces."""

    name: str
    size: int
    mode: int
    checksum: int
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """An entry that another was built on, with the digest of its manifest; `content` is as `content_of`."""

    name: EntryName
    content: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What a person is told of an entry: its `title`, e.g. ``"state base"``, and what it was made from."""

    title: str
    made_from: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryInRegistry:
    """An entry of the store as a registry has it."""

    name: EntryName
    description: Description
    needs: tuple[Need, ...]
    files: tuple[FileInRegistry, ...]

    @property
    def pieces(self) -> list[Piece]:
        """The pieces of all files, each once."""
        return list({piece.digest: piece for file in self.files for piece in file.pieces}.values())

    @property
    def content(self) -> str:
        """What `content_of` returns for this entry in a store."""
        return _content(self.name, [(file.name, file.size, file.checksum) for file in self.files])

    def config(self) -> bytes:
        """The artifact's configuration."""
        found = {
            "format": FORMAT,
            "kind": self.name.kind,
            "key": self.name.key,
            "title": self.description.title,
            "made_from": dict(self.description.made_from),
            "needs": [
                {
                    "kind": need.name.kind,
                    "key": need.name.key,
                    "content": need.content,
                    "digest": need.digest,
                }
                for need in self.needs
            ],
            "files": [
                {
                    "name": file.name,
                    "size": file.size,
                    "mode": file.mode,
                    "checksum": file.checksum,
                    "pieces": [[piece.digest, piece.size, piece.length] for piece in file.pieces],
                }
                for file in self.files
            ],
        }
        return json.dumps(found, separators=(",", ":")).encode()

    def manifest(self) -> bytes:
        """The artifact's manifest."""
        config = self.config()
        found = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "artifactType": ARTIFACT_TYPE,
            "config": {"mediaType": CONFIG_TYPE, "digest": digest_of(config), "size": len(config)},
            "layers": [
                {"mediaType": PIECE_TYPE, "digest": piece.digest, "size": piece.size} for piece in self.pieces
            ],
            "annotations": {NAME_ANNOTATION: self.description.title},
        }
        return json.dumps(found, separators=(",", ":")).encode()


def digest_of(data: bytes) -> str:
    """The digest of a blob or a manifest (OCI image specification, "Digests")."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def tag_of(name: EntryName) -> str:
    """The tag of an entry: a registry finds it by its kind and its key."""
    return f"{name.kind}-{name.key}"


def tag_of_title(title: str) -> str | None:
    """The tag of the state that was pushed last of those with `title`, for a person; None without one."""
    kind, _, name = title.partition(" ")
    return name if kind in ("state", "cluster") and re.fullmatch(r"\w[\w.-]{0,127}", name, re.ASCII) else None


def name_in(config: bytes) -> EntryName:
    """The name of the entry that the configuration describes; raises `RegistryError`."""
    try:
        return _entry_name(json.loads(config))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RegistryError(f"its configuration is not valid: {error!r}") from error


def content_of(entry: Path, name: EntryName) -> str:
    """A hash of the files of `entry`, the same on each host that has the same content.

    Raises `StoreDamaged` if the entry cannot be read.
    """
    if name.kind == "downloads":
        return name.key
    files = read_manifest(entry)
    return _content(name, [(file, each.size, each.checksum) for file, each in files.items()])


def _content(name: EntryName, files: list[tuple[str, int, int | None]]) -> str:
    if name.kind == "downloads":
        return name.key  # it is made from the download's checksum
    rows = sorted(each for each in files if each[0] not in OWN_FILES)
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def config_digest(manifest: bytes) -> tuple[str, int]:
    """The digest and the size of the configuration that `manifest` names; raises `RegistryError`."""
    try:
        found = json.loads(manifest)
        if found.get("artifactType") != ARTIFACT_TYPE or found["config"]["mediaType"] != CONFIG_TYPE:
            raise RegistryError("it is not an entry of pytest-vmsnap")
        return _digest(found["config"]["digest"]), _number(found["config"]["size"], 64 << 20)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RegistryError(f"its manifest is not valid: {error!r}") from error


def parse_config(data: bytes, expected: EntryName) -> EntryInRegistry:
    """The entry that the configuration `data` describes; raises `RegistryError` if it is not `expected`."""
    try:
        found: dict[str, Any] = json.loads(data)
        if found["format"] != FORMAT:
            raise RegistryError(f"it has format {found['format']!r}; this version reads format {FORMAT}")
        name = _entry_name(found)
        if name != expected:
            raise RegistryError(f"it is {name} under the name of {expected}")
        files = tuple(_file(each) for each in found["files"][: MOST_FILES + 1])
        if len(files) > MOST_FILES or len({file.name for file in files}) != len(files):
            raise ValueError("its list of files")
        needs = tuple(
            Need(name=_entry_name(each), content=str(each["content"]), digest=_digest(each["digest"]))
            for each in found["needs"]
        )
        made_from = {str(part): str(text) for part, text in found["made_from"].items()}
        description = Description(title=str(found["title"])[:200], made_from=made_from)
        return EntryInRegistry(name=name, description=description, needs=needs, files=files)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RegistryError(f"its configuration is not valid: {error!r}") from error


def _file(found: dict[str, Any]) -> FileInRegistry:
    name = found["name"]
    if (
        not isinstance(name, str)
        or not _FILE_NAME.fullmatch(name)
        or name in ("manifest.json", "used", "built")
    ):
        raise RegistryError(f"it has a file with the name {name!r}, which leads outside of the entry")
    size = _number(found["size"], LARGEST_FILE)
    pieces = tuple(
        Piece(
            digest=_digest(digest), size=_number(packed, LONGEST_PIECE), length=_number(length, LONGEST_PIECE)
        )
        for digest, packed, length in found["pieces"]
    )
    return FileInRegistry(
        name=name,
        size=size,
        mode=_number(found["mode"], 0o777) & 0o600,
        checksum=_number(found["checksum"], 0xFFFFFFFF),
        pieces=pieces,
    )


def _entry_name(found: dict[str, Any]) -> EntryName:
    kind, key = found["kind"], found["key"]
    if kind not in TRAVELLING or kind not in get_args(Kind) or not _KEY.fullmatch(str(key)):
        raise ValueError(f"the entry {kind}/{key}")
    return EntryName(kind=cast("Kind", kind), key=str(key))


def _digest(found: object) -> str:
    if not isinstance(found, str) or not _DIGEST.fullmatch(found):
        raise ValueError(f"the digest {found!r}")
    return found


def _number(found: object, most: int) -> int:
    if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found <= most:
        raise ValueError(f"the number {found!r}")
    return found
