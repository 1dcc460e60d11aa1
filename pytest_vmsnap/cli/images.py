"""List the vendors' images that have names, and the images in the store."""

# ruff: noqa: T201 - a command's output

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from pytest_vmsnap.cli import state_table, stored_states
from pytest_vmsnap.image.vendors import vendors

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_vmsnap.model import Settings

NAME = "images"


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `vmsnap images`."""
    parser.set_defaults(run=run)


def run(settings: Settings, _arguments: argparse.Namespace) -> int:
    """Print both lists."""
    store = stored_states.open_store(settings)
    print("images by name:")
    width = max(len(vendor.examples_text) for vendor in vendors().values())
    for vendor in vendors().values():
        print(f"  {vendor.examples_text:<{width}}  {vendor.title}")
    print(f"  {'debian:SUITE':<{width}}  Debian, built on this host (e.g. debian:trixie)")
    print(f"in the store {store.path}:")
    rows = sorted(_rows(store.place(entry) for entry in store.entries("images")))
    print(*(rows or ["none"]), sep="\n", end="\n")
    return 0


def _rows(entries: Iterator[Path]) -> Iterator[str]:
    for entry in entries:
        try:
            meta = json.loads((entry / "meta.json").read_text())
            size = sum(path.stat().st_blocks * 512 for path in entry.iterdir() if path.is_file())
            age = state_table.ago(time.time() - _when(meta))
            yield f"  {_title(meta)}  {state_table.size(size)}  {age} old"
        except (OSError, ValueError, TypeError, KeyError):
            yield f"  {entry.name}  cannot be read; see vmsnap verify"


def _title(meta: dict[str, Any]) -> str:
    if "suite" in meta:
        return f"debian:{meta['suite']} ({len(meta['packages'])} packages more)"
    checksum = next(f"{name}:{meta[name]}" for name in ("sha256", "sha512") if name in meta)
    return f"{meta.get('name', meta['address'])}@{checksum}"


def _when(meta: dict[str, Any]) -> float:
    return float(meta.get("built") or meta["fetched"])
