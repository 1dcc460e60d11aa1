"""Installing with cloud-init (cloud-init's documentation, "NoCloud"): a disk that it reads at first boot."""

from __future__ import annotations

import json
from io import BytesIO
from typing import TYPE_CHECKING

import pycdlib

if TYPE_CHECKING:
    from pathlib import Path

VOLUME = "cidata"  # the volume name that cloud-init looks for


class ViaCloudInit:
    """cloud-init, which runs the script of `seed_image` by itself: nothing is left to do from here."""

    name = "cloud-init"

    def is_ready(self) -> bool:
        return False

    def run_as_root(self, script: str, *, timeout: float) -> None:
        """Never called: it is never ready."""

    def problem(self) -> str:
        return "it did not read its seed, the disk with the volume name cidata (is it installed and enabled?)"

    def close(self) -> None:
        """Do nothing: nothing is open."""


def seed_image(path: Path, script: str, *, instance: str) -> None:
    """Write a seed image to `path`: cloud-init runs `script` as root at the first boot of `instance`."""
    user_data = {
        # early in the boot, and once per instance ("bootcmd", "cloud-init-per")
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
