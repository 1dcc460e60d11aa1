"""An entry of the store as an OCI artifact (OCI image specification 1.1, "Image Manifest").

The artifact's configuration lists the files of the entry, and the pieces that they consist of; its layers are
these pieces (see `pieces`). A large file is cut at fixed places, so what two entries have in common is stored
once. Small files are joined, since a layer of memory has thousands of them.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from pytest_vmsnap.errors import RegistryError
from pytest_vmsnap.registry.known_pages import PAGE
from pytest_vmsnap.registry.pieces import LONGEST_PIECE, PIECE_BYTES
from pytest_vmsnap.store import MARKS, EntryName, Kind, read_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

FORMAT = 2  # 2 has copies
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
# Types that every registry takes: GitLab's and Quay's refuse what is not on their lists, an artifactType too.
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
PIECE_TYPE = "application/octet-stream"
FORMAT_ANNOTATION = "org.pytest-vmsnap.format"
TITLE_ANNOTATION = "org.opencontainers.image.title"
TRAVELLING: tuple[Kind, ...] = ("states", "images")  # kinds of entries that go into a registry
META = "meta.json"  # of an entry; it names places of the host, so it is no part of its content
LARGEST_META = 4 << 20  # bytes
LARGEST_FILE = 1 << 44  # bytes
LARGEST_CONFIG = 8 << 20  # bytes
MOST_FILES = 100_000
MOST_SOURCES = 256
LONGEST_TEXT = 200  # characters
SHOWN_DIGITS = 8  # of a key, in the tag for a person

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_KEY = re.compile(r"[A-Za-z0-9]{1,100}")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}(?:/[A-Za-z0-9][A-Za-z0-9._-]{0,99}){0,3}")
_STATE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A layer: its `digest`, its `size` in bytes, and the `length` in bytes of what it holds, uncompressed.

    `copied` are the bytes that come from sources instead.
    """

    digest: str
    size: int
    length: int
    copied: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FileInRegistry:
    """A file of an entry: its `size` in bytes, and the `checksum` of the store's manifest."""

    name: str
    size: int
    mode: int
    checksum: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Files of an entry, and the pieces that they consist of: a large file, or several small ones.

    Small files are placed one after another, each at the next multiple of a page.
    """

    files: tuple[FileInRegistry, ...]
    pieces: tuple[Piece, ...]

    def places(self) -> Iterator[tuple[FileInRegistry, int]]:
        """Each file, and where it begins."""
        at = 0
        for file in self.files:
            yield file, at
            at = padded(at + file.size)

    @property
    def size(self) -> int:
        """Of the whole part, in bytes."""
        file, at = list(self.places())[-1]
        return at + file.size


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A file that pieces copy from: `file` of this entry, or of one that it was built on."""

    entry: EntryName
    file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """An entry that another was built on, with the digest of its manifest; `content` is as `content_of`."""

    name: EntryName
    content: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What a person is told of an entry: its `title`, e.g. ``"state base"``, and what it was made from.

    `state` is the name of a state, empty for an image.
    """

    title: str
    state: str = ""
    made_from: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryInRegistry:
    """An entry of the store as a registry has it."""

    name: EntryName
    description: Description
    needs: tuple[Need, ...]
    parts: tuple[Part, ...]
    sources: tuple[Source, ...] = ()

    @property
    def title(self) -> str:
        return self.description.title

    @property
    def files(self) -> list[FileInRegistry]:
        """All files."""
        return [file for part in self.parts for file in part.files]

    @property
    def pieces(self) -> list[Piece]:
        """The pieces of all files, each once."""
        return list({piece.digest: piece for part in self.parts for piece in part.pieces}.values())

    @property
    def content(self) -> str:
        """What `content_of` returns for this entry in a store."""
        return _content([(file.name, file.size, file.checksum) for file in self.files])

    @property
    def tags(self) -> list[str]:
        """The tags that the entry gets: by its key; for a state also by its name, with and without its key."""
        state = self.description.state
        if not _STATE_NAME.fullmatch(state):
            return [tag_of(self.name)]
        return [tag_of(self.name), tag_of_state(state, self.name.key), tag_of_state(state)]

    def config(self) -> bytes:
        """The artifact's configuration."""
        found = {
            "format": FORMAT,
            "kind": self.name.kind,
            "key": self.name.key,
            "title": self.description.title,
            "state": self.description.state,
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
            "sources": [[each.entry.kind, each.entry.key, each.file] for each in self.sources],
            "parts": [
                {
                    "files": [[file.name, file.size, file.mode, file.checksum] for file in part.files],
                    "pieces": [[piece.digest, piece.size, piece.length, piece.copied] for piece in part.pieces],
                }
                for part in self.parts
            ],
        }
        return json.dumps(found, separators=(",", ":")).encode()

    def manifest(self) -> bytes:
        """The artifact's manifest."""
        config = self.config()
        found = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {"mediaType": CONFIG_TYPE, "digest": digest_of(config), "size": len(config)},
            "layers": [
                {"mediaType": PIECE_TYPE, "digest": piece.digest, "size": piece.size} for piece in self.pieces
            ],
            "annotations": {TITLE_ANNOTATION: self.description.title, FORMAT_ANNOTATION: str(FORMAT)},
        }
        return json.dumps(found, separators=(",", ":")).encode()


def padded(size: int) -> int:
    """The next multiple of a page."""
    return -(-size // PAGE) * PAGE


def digest_of(data: bytes) -> str:
    """The digest of a blob or a manifest (OCI image specification, "Digests")."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def tag_of(name: EntryName) -> str:
    """The tag of an entry: a registry finds it by its kind and its key."""
    return f"{name.kind}-{name.key}"


def tag_of_state(state: str, key: str = "") -> str:
    """The tag for a person: of the state that was pushed last under this name, or of the one with this key."""
    return f"{state}-{key[:SHOWN_DIGITS]}" if key else state


def content_of(entry: Path) -> str:
    """A hash of the files of `entry`, the same on each host that has the same content.

    Raises `StoreDamaged` if the entry cannot be read.
    """
    return _content([(file, each.size, each.checksum) for file, each in read_manifest(entry).items()])


def _content(files: list[tuple[str, int, int | None]]) -> str:
    rows = sorted(each for each in files if each[0] not in (META, *MARKS))
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def parse_manifest(manifest: bytes) -> tuple[str, int]:
    """The digest and the size of the configuration that `manifest` names; raises `RegistryError`."""
    try:
        found = json.loads(manifest)
        if FORMAT_ANNOTATION not in found.get("annotations", {}):
            raise RegistryError("it is not an entry of pytest-vmsnap")
        return _digest(found["config"]["digest"]), _number(found["config"]["size"], LARGEST_CONFIG)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise RegistryError(f"its manifest is not valid: {error!r}") from error


def parse_config(data: bytes) -> EntryInRegistry:
    """The entry that the configuration `data` describes; raises `RegistryError`."""
    try:
        found: dict[str, Any] = json.loads(data)
        if found["format"] != FORMAT:
            raise RegistryError(
                f"it has format {found['format']!r}; this version reads format {FORMAT}",
                hint="push it again with this version, then run vmsnap lock if it is pinned",
            )
        parts = tuple(_part(each) for each in found["parts"])
        names = [file.name for part in parts for file in part.files]
        folders = {name[:at] for name in names for at in range(len(name)) if name[at] == "/"}
        if len(names) > MOST_FILES or len(set(names)) != len(names) or folders & set(names):
            raise ValueError("its list of files")
        sources = tuple(_source(*each) for each in found["sources"])
        if len(set(sources)) != len(sources) or len(sources) > MOST_SOURCES:
            raise ValueError("its list of sources")
        needs = tuple(
            Need(name=_entry_name(each), content=str(each["content"]), digest=_digest(each["digest"]))
            for each in found["needs"]
        )
        made_from = {_plain(part): _plain(text) for part, text in found["made_from"].items()}
        description = Description(
            title=_plain(found["title"]), state=_plain(found["state"]), made_from=made_from
        )
        return EntryInRegistry(
            name=_entry_name(found),
            description=description,
            needs=needs,
            parts=parts,
            sources=sources,
        )
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise RegistryError(f"its configuration is not valid: {error!r}") from error


def _part(found: dict[str, Any]) -> Part:
    files = tuple(_file(*each) for each in found["files"])
    if not files:
        raise ValueError("a part without a file")
    pieces = tuple(
        Piece(
            digest=_digest(digest),
            size=_number(packed, LONGEST_PIECE),
            length=_number(length, LONGEST_PIECE),
            copied=_number(copied, LONGEST_PIECE),
        )
        for digest, packed, length, copied in found["pieces"]
    )
    part = Part(files=files, pieces=pieces)
    if len(files) > 1 and part.size > PIECE_BYTES:
        raise ValueError("a part of several files that is too large")
    return part


def _file(name: object, size: object, mode: object, checksum: object) -> FileInRegistry:
    if not isinstance(name, str) or not _FILE_NAME.fullmatch(name):
        raise RegistryError(f"it has a file with the name {name!r}, which leads outside of the entry")
    if name in MARKS:
        raise RegistryError(f"it has a file {name}, which only the store itself writes")
    return FileInRegistry(
        name=name,
        size=_number(size, LARGEST_META if name == META else LARGEST_FILE),
        mode=_number(mode, 0o777) & 0o600,
        checksum=_number(checksum, 0xFFFFFFFF),
    )


def _source(kind: object, key: object, file: object) -> Source:
    if not isinstance(file, str) or not _FILE_NAME.fullmatch(file) or file in (META, *MARKS):
        raise RegistryError(f"it copies from a file with the name {file!r}, which is no disk of an entry")
    return Source(entry=_entry_name({"kind": kind, "key": key}), file=file)


def _entry_name(found: dict[str, Any]) -> EntryName:
    kind, key = found["kind"], found["key"]
    if kind not in TRAVELLING or not _KEY.fullmatch(str(key)):
        raise ValueError(f"the entry {kind}/{key}")
    return EntryName(kind=cast("Kind", kind), key=str(key))


def _plain(found: object) -> str:
    """A text that a terminal can show."""
    return "".join(each for each in str(found)[:LONGEST_TEXT] if each.isprintable())


def _digest(found: object) -> str:
    if not isinstance(found, str) or not _DIGEST.fullmatch(found):
        raise ValueError(f"the digest {found!r}")
    return found


def _number(found: object, most: int) -> int:
    if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found <= most:
        raise ValueError(f"the number {found!r}")
    return found
