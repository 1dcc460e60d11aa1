"""An image and a state as the store has them, made by hand."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

from pytest_vmsnap.model import MachineSpec
from pytest_vmsnap.store import EntryName

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_vmsnap.store import Store

IMAGE = EntryName(kind="images", key="image1")


def qcow2(path: Path, *options: str) -> None:
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *options, path, "1M"], check=True)


def state(store: Store) -> Path:
    """A directory as a pulled state has it, with an overlay on the image."""
    draft = store.path / "states" / ".draft"
    draft.mkdir()
    image = store.place(IMAGE) / "disk.qcow2"
    qcow2(draft / "disk0.qcow2", "-F", "qcow2", "-b", str(image))
    subprocess.run(
        [
            "qemu-img",
            "rebase",
            "-u",
            "-F",
            "qcow2",
            "-b",
            "../../images/image1/disk.qcow2",
            draft / "disk0.qcow2",
        ],
        check=True,
    )
    with (draft / "ram").open("wb") as file:
        file.truncate(128 << 20)
    (draft / "device-state").write_bytes(b"state")
    meta = {
        "origin": {"name": "base", "project": "/elsewhere", "parent": None, "made_from": {}, "created": 0.0},
        "spec": MachineSpec(memory=128).as_dict(),
        "image": {
            "key": "image1",
            "origin": "debian:trixie",
            "format": "qcow2",
            "disk": "images/image1/disk.qcow2",
            "kernel": None,
            "initrd": None,
            "modules": None,
        },
        "disks": ["disk0.qcow2"],
        "abilities": {"file_address": False, "sealed_memory": False},
        "guest": {"reseeder": "kernel", "boot": "", "shells": [1, 2]},
        "bare_devices": False,
        "has_lan": False,
        "full": True,
    }
    (draft / "meta.json").write_text(json.dumps(meta))
    return draft
