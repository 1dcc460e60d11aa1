"""The files of machines: overlays and memory."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

from pytest_vmsnap.errors import HostError, SpecError


def overlay(path: Path, *, backing: Path, backing_format: str) -> Path:
    """A new qcow2 at `path` that keeps what differs from `backing`."""
    return _create(path, ["-b", str(backing), "-F", backing_format])


def empty_disk(path: Path, *, size_mib: int) -> Path:
    """A new, empty qcow2 at `path`."""
    return _create(path, [], f"{size_mib}M")


def rebase(path: Path, *, within: Path) -> None:
    """Have the qcow2 at `path` name its backing file by the way to it, if both are below `within`."""
    if (backing := backing_of(path)) and backing.is_relative_to(within):
        backing_format = _information(path)["backing-filename-format"]
        relative = os.path.relpath(backing, path.parent)
        command = ["qemu-img", "rebase", "-u", "-F", backing_format, "-b", relative, str(path)]
        mode = path.stat().st_mode
        path.chmod(0o600)
        _run(command, f"{path} could not be given another backing file")
        path.chmod(mode & 0o777)


def copy_onto(path: Path, target: Path, *, backing: Path) -> Path:
    """Copy the qcow2 at `path` to the new file `target`, which keeps what differs from `backing` in its place.

    `backing` has the same content as the backing file that `path` has.
    """
    _run(
        ["cp", "--reflink=auto", "--sparse=always", "--no-preserve=mode", str(path), str(target)],
        f"{path} could not be copied",
    )
    target.chmod(0o600)
    backing_format = _information(path)["backing-filename-format"]
    relative = os.path.relpath(backing, target.parent)
    command = ["qemu-img", "rebase", "-u", "-F", backing_format, "-b", relative, str(target)]
    _run(command, f"{target} could not be given another backing file")
    return target


def flatten(path: Path, target: Path) -> Path:
    """Write the disk in the qcow2 at `path` to the qcow2 `target`, which needs no other file."""
    _run(["qemu-img", "convert", "-U", "-O", "qcow2", str(path), str(target)], f"{path} could not be flattened")
    return target


def backing_of(path: Path) -> Path | None:
    """The absolute path of the backing file of the qcow2 at `path`, None where it has none."""
    found = _information(path).get("backing-filename")
    return Path(os.path.normpath(path.parent / found)) if found else None


def _information(path: Path) -> dict[str, str]:
    done = _run(["qemu-img", "info", "-U", "--output=json", str(path)], f"{path} cannot be read")
    found: dict[str, str] = json.loads(done)
    return found


def _run(command: list[str], failure: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise HostError(f"{failure}: {done.stderr.strip()}")
    return done.stdout


def format_of(path: Path) -> str:
    """The format of an image, as qemu-img finds it; raises `SpecError` where it is none."""
    command = ["qemu-img", "info", "-U", "--output=json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SpecError(f"the disk {path} cannot be used: {done.stderr.strip()}")
    return str(json.loads(done.stdout)["format"])


def _create(path: Path, options: list[str], *size: str) -> Path:
    _run(["qemu-img", "create", "-q", "-f", "qcow2", *options, str(path), *size], f"{path} could not be made")
    path.chmod(0o600)
    return path


def free_mib(directory: Path) -> int:
    """The free space in MiB of the file system that `directory` is on."""
    return shutil.disk_usage(directory).free >> 20


def create(path: Path, *, size: int) -> Path:
    """A new, sparse file of `size` bytes."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.ftruncate(descriptor, size)
    finally:
        os.close(descriptor)
    return path


def remove(directory: Path) -> None:
    """Remove the directory of a machine that has ended."""
    shutil.rmtree(directory, ignore_errors=True)
