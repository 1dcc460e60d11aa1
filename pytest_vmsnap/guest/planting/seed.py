"""Planting by cloud-init (cloud-init's documentation, "NoCloud"): a disk that it reads at the first boot."""

from __future__ import annotations

import json
from io import BytesIO
from typing import TYPE_CHECKING

import pycdlib

if TYPE_CHECKING:
    from pathlib import Path

VOLUME = "cidata"  # by which cloud-init finds it


class BySeed:
    """What `seed_image` has asked cloud-init to do: nothing is left to be done from here."""

    name = "cloud-init"

    def is_ready(self) -> bool:
        return False

    def plant(self, script: str, *, timeout: float) -> None:
        """Never called: it is never ready."""

    def problem(self) -> str:
        return "it has not read the seed (a disk with the volume name cidata)"

    def close(self) -> None:
        """There is nothing to let go of."""


def seed_image(path: Path, script: str, *, instance: str) -> None:
    """Write the image of a seed to `path`: `script` is run as root at the first boot of `instance`."""
    user_data = {
        # early in the boot, and once for an instance ("bootcmd", "cloud-init-per")
        "bootcmd": [["cloud-init-per", "once", "vmsnap", "sh", "-c", script]],
        "disable_root": False,
    }
    files = {
        "user-data": "#cloud-config\n" + json.dumps(user_data, indent=1) + "\n",  # JSON is YAML
        "meta-data": json.dumps({"instance-id": instance, "local-hostname": "vm"}) + "\n",
    }
    image = pycdlib.PyCdlib()
    image.new(interchange_level=3, vol_ident=VOLUME, joliet=3, rock_ridge="1.09")
    for number, (name, text) in enumerate(files.items()):
        data = text.encode()
        image.add_fp(BytesIO(data), len(data), f"/FILE{number}.;1", rr_name=name, joliet_path=f"/{name}")
    image.write(str(path))
    image.close()
