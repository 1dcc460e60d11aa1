from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap.progress import Progress
from pytest_vmsnap.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def said() -> list[str]:
    """What a person was told."""
    return []


@pytest.fixture
def progress(said: list[str]) -> Progress:
    return Progress(said.append)


@pytest.fixture
def store(tmp_path: Path, progress: Progress) -> Store:
    return Store(tmp_path / "store", progress=progress)


@pytest.fixture
def make_disk(tmp_path: Path) -> Callable[..., Path]:
    """Makes a disk image with a boot sector and something behind it: name, format, backing file."""

    def make(name: str, kind: str = "qcow2", backing: str | None = None, size: str = "8M") -> Path:
        path = tmp_path / name
        options = ["-b", backing, "-F", "qcow2"] if backing else []
        subprocess.run(
            ["qemu-img", "create", "-q", "-f", kind, *options, path.name, size], cwd=tmp_path, check=True
        )
        if kind in ("qcow2", "raw"):
            writes = ["write -P 7 0 4M", "write -P 0x55 510 1", "write -P 0xaa 511 1"]
            commands = [part for write in writes for part in ("-c", write)]
            subprocess.run(["qemu-io", "-f", kind, *commands, path], check=True, capture_output=True)
        return path

    return make
