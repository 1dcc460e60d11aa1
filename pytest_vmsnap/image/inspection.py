"""Inspect a disk image with qemu-img."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from pytest_vmsnap.errors import ImageError
from pytest_vmsnap.image import commands

INSTALL_QEMU_IMG = "install it: Debian/Ubuntu: qemu-utils; Fedora: qemu-img; Arch: qemu-img"

# Magics of packed downloads that users forget to unpack; QEMU takes each of them for a raw disk.
_PACKED = {
    b"\x1f\x8b": ("gzip", "gunzip -k"),
    b"\xfd7zXZ\x00": ("xz", "xz -dk"),
    b"\x28\xb5\x2f\xfd": ("zstd", "zstd -d"),
    b"BZh": ("bzip2", "bunzip2 -k"),
    b"PK\x03\x04": ("zip", "unzip"),
    b"7z\xbc\xaf\x27\x1c": ("7z", "7z x"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """A disk image that QEMU can use; `files` are all files of its backing chain, its own first."""

    path: Path
    format: Literal["qcow2", "raw"]
    files: tuple[Path, ...]


def inspect(path: Path, *, alone: bool = False) -> Disk:
    """Find the format of the image at `path` by its content, never by its name, and check that it is whole.

    The image is opened read-only and without a lock, so it may be in use. With `alone`, it must not refer to
    other files.

    Raises `ImageError` if it is damaged, packed, of another format, or lacks a backing file.
    """
    _refuse_packed(path)
    chain = _information(path)
    top = chain[0]
    if alone and len(references := _files(chain)) > 1:
        raise ImageError(
            f"the image {path} refers to another file, {references[1]}",
            hint="an image from an address must be a single file: qemu-img convert -O qcow2 makes one",
        )
    for layer in chain:
        _check_layer(layer)
    if top["format"] == "qcow2":
        _check_whole(path)
    return Disk(path=path, format=cast('Literal["qcow2", "raw"]', top["format"]), files=_files(chain))


def _refuse_packed(path: Path) -> None:
    with path.open("rb") as file:
        head = file.read(8)
    for magic, (name, unpack) in _PACKED.items():
        if head.startswith(magic):
            raise ImageError(f"the image {path} is packed with {name}", hint=f"unpack it: {unpack} {path}")


def _information(path: Path) -> list[dict[str, Any]]:
    """The layers of the image, the top one first (qemu-img(1), ``info --backing-chain``)."""
    output = commands.run(
        ["qemu-img", "info", "--output=json", "-U", "--backing-chain", str(path)],
        failed=f"the image {path} cannot be used: it is damaged, or lacks its backing file",
        hint=f"look at it with: qemu-img info {path}",
        install=INSTALL_QEMU_IMG,
    )
    return cast("list[dict[str, Any]]", json.loads(output))


def _check_layer(layer: dict[str, Any]) -> None:
    path, kind = layer["filename"], layer["format"]
    if kind not in ("qcow2", "raw"):
        raise ImageError(
            f"the image {path} has the format {kind}; qcow2 and raw can be used",
            hint=f"convert it: qemu-img convert -O qcow2 {path} {Path(path).with_suffix('.qcow2').name}",
        )
    if layer.get("encrypted"):
        raise ImageError(f"the image {path} is encrypted", hint="qemu-img convert can make an unencrypted copy")
    if layer.get("format-specific", {}).get("data", {}).get("corrupt"):
        raise ImageError(
            f"the image {path} is marked as damaged",
            hint=f"fetch or build it again; qemu-img check -r all {path} may repair a copy",
        )


def _check_whole(path: Path) -> None:
    """Check the tables of a qcow2: a truncated file still has a valid header."""
    output = commands.run(
        ["qemu-img", "check", "--output=json", "-U", "-f", "qcow2", str(path)],
        failed=f"the image {path} is damaged",
        hint=f"fetch or build it again; to see what is wrong: qemu-img check -U {path}",
        install=INSTALL_QEMU_IMG,
        accept=(0, 3),  # 3: leaked clusters, which waste space and harm nothing (qemu-img(1))
    )
    facts = json.loads(output)
    # in an image that was never written to, QEMU counts a cluster that does not exist yet
    if facts.get("allocated-clusters", 0) and facts.get("image-end-offset", 0) > path.stat().st_size:
        raise ImageError(f"the image {path} is truncated", hint="fetch or build it again")


def _files(chain: list[dict[str, Any]]) -> tuple[Path, ...]:
    found = []
    for layer in chain:
        found.append(Path(layer["filename"]))
        if data_file := layer.get("format-specific", {}).get("data", {}).get("data-file"):
            found.append(Path(layer["filename"]).parent / data_file)
    return tuple(found)
