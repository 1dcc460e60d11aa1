"""Copies of stores, and of their entries."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def copy_tree(source: Path, target: Path) -> Path:
    """Copy a directory with disks and memory in it, with holes for zeros; returns the copy, `target`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "--archive", "--sparse=always", "--", source, target], check=True)
    return target
