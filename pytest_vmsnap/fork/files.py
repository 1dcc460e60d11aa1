"""The files of machines: overlays and memory.

A function that runs qemu-img or cp raises `HostError` if that fails, unless it says otherwise.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from pytest_vmsnap.errors import HostError, SpecError
from pytest_vmsnap.host import copy_file


def overlay(path: Path, *, backing: Path, backing_format: str) -> Path:
    """Create a qcow2 at `path` that stores what differs from `backing`."""
    return _create(path, ["-b", str(backing), "-F", backing_format])


def empty_disk(path: Path, *, size_mib: int) -> Path:
    """Create an empty qcow2 of `size_mib` MiB at `path`."""
    return _create(path, [], f"{size_mib}M")


def rebase(path: Path, *, within: Path) -> None:
    """Make the qcow2 at `path` name its backing file by a relative path, if that file is below `within`."""
    if (backing := backing_of(path)) and backing.is_relative_to(within):
        backing_format = _information(path)["backing-filename-format"]
        relative = os.path.relpath(backing, path.parent)
        command = ["qemu-img", "rebase", "-u", "-F", backing_format, "-b", relative, str(path)]
        mode = path.stat().st_mode
        path.chmod(0o600)
        _run(command, f"cannot change the backing file of {path}")
        path.chmod(mode & 0o777)


def copy_onto(path: Path, target: Path, *, backing: Path) -> Path:
    """Copy the qcow2 at `path` to the new file `target`, with `backing` as its backing file.

    `backing` must have the same content as the backing file of `path`.
    """
    copy_file(path, target)
    backing_format = _information(path)["backing-filename-format"]
    relative = os.path.relpath(backing, target.parent)
    command = ["qemu-img", "rebase", "-u", "-F", backing_format, "-b", relative, str(target)]
    _run(command, f"cannot change the backing file of {target}")
    return target


def flatten(path: Path, target: Path, *, source_format: str = "qcow2") -> Path:
    """Write the disk in the image at `path` to the qcow2 `target`, which has no backing file."""
    _run(
        ["qemu-img", "convert", "-U", "-f", source_format, "-O", "qcow2", str(path), str(target)],
        f"cannot convert {path} to an image without a backing file",
    )
    return target


def backing_of(path: Path) -> Path | None:
    """The absolute path of the backing file of the qcow2 at `path`; None if it has none."""
    found = _information(path).get("backing-filename")
    return Path(os.path.normpath(path.parent / found)) if found else None


def references_of(path: Path) -> list[str]:
    """What the qcow2 at `path` refers to, as it is written there: a backing file, an external data file."""
    # the format is given: a file may look like one of another format too, which has no references
    command = ["qemu-img", "info", "-U", "-f", "qcow2", "--output=json", str(path)]
    found: Any = json.loads(_run(command, f"cannot read {path}"))
    data = found.get("format-specific", {}).get("data", {}).get("data-file")
    return [str(each) for each in (found.get("backing-filename"), data) if each]


def _information(path: Path) -> dict[str, str]:
    done = _run(["qemu-img", "info", "-U", "--output=json", str(path)], f"cannot read {path}")
    found: dict[str, str] = json.loads(done)
    return found


def _run(command: list[str], failure: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise HostError(f"{failure}: {done.stderr.strip()}")
    return done.stdout


def format_of(path: Path) -> str:
    """The format of an image, as qemu-img detects it; raises `SpecError` if qemu-img cannot read it."""
    command = ["qemu-img", "info", "-U", "--output=json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SpecError(f"the disk {path} cannot be used: {done.stderr.strip()}")
    return str(json.loads(done.stdout)["format"])


def _create(path: Path, options: list[str], *size: str) -> Path:
    _run(["qemu-img", "create", "-q", "-f", "qcow2", *options, str(path), *size], f"cannot create {path}")
    path.chmod(0o600)
    return path


def free_mib(directory: Path) -> int:
    """The free space in MiB on the file system of `directory`."""
    return shutil.disk_usage(directory).free >> 20


def create(path: Path, *, size: int) -> Path:
    """Create a sparse file of `size` bytes; raises `FileExistsError` if `path` exists."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.ftruncate(descriptor, size)
    finally:
        os.close(descriptor)
    return path


def remove(directory: Path) -> None:
    """Remove the directory of a machine that has ended."""
    shutil.rmtree(directory, ignore_errors=True)
