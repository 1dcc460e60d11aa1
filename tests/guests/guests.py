"""The guests of other kinds, and their images."""

# ruff: noqa: T201 - a command's output

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from pytest_vmsnap.model import digest

from . import vendor_image
from .vendor_image import PASSWORD, SYSTEMS

LOGIN = ("--vmsnap-console-user=root", f"--vmsnap-console-password={PASSWORD}")


@dataclass(frozen=True, kw_only=True)
class Guest:
    """A guest: its image (one of `SYSTEMS`, or a value of ``vmsnap_image``), its options and further tests."""

    system: str = ""
    image: str = ""
    options: tuple[str, ...] = ()
    more_tests: tuple[str, ...] = ()

    def find_image(self) -> str:
        """The value for ``vmsnap_image``; makes the image of a system if it is not in the cache."""
        return self.image or str(image_of(self.system))


GUESTS = {
    "debian-12": Guest(image="debian:bookworm"),
    "debian-13": Guest(image="debian:trixie"),
    "debian-sid": Guest(image="debian:sid"),
    "debian-13-uefi": Guest(image="debian:trixie", options=("--vmsnap-firmware=uefi",)),
    "cloud-bios": Guest(system="cloud", more_tests=("tests/guests/test_cluster_network.py",)),
    "cloud-uefi": Guest(system="cloud", options=("--vmsnap-firmware=uefi",)),
    "cloud-secure": Guest(
        system="cloud",
        options=("--vmsnap-firmware=uefi-secure",),
        more_tests=("tests/guests/test_secure_boot.py",),
    ),
    "sysvinit": Guest(system="sysvinit", options=LOGIN),
    "sysvinit-uefi": Guest(system="sysvinit", options=(*LOGIN, "--vmsnap-firmware=uefi")),
    "ifupdown": Guest(system="ifupdown", options=LOGIN, more_tests=("tests/guests/test_cluster_network.py",)),
    "networkmanager": Guest(
        image="debian:trixie",
        options=("--vmsnap-packages=network-manager",),
        more_tests=("tests/guests/test_network_manager.py",),
    ),
    "openrc": Guest(system="openrc", options=LOGIN),
    "runit": Guest(system="runit", options=LOGIN),
    "busybox": Guest(system="busybox", options=LOGIN),
    "apparmor": Guest(
        image="debian:trixie",
        options=("--vmsnap-packages=apparmor",),
        more_tests=("tests/guests/test_apparmor.py",),
    ),
    "selinux": Guest(system="selinux", options=(*LOGIN, "--vmsnap-memory=1G")),
}


def image_of(system: str) -> Path:
    """The image of a system, made if it is not in the cache."""
    cache = Path(os.environ.get("VMSNAP_GUESTS_CACHE") or platformdirs.user_cache_path("pytest-vmsnap-guests"))
    key = digest({"system": repr(SYSTEMS[system]), "maker": Path(vendor_image.__file__).read_text()})
    path = cache / f"{system}-{key[:16]}.qcow2"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        for old in cache.glob(f"{system}-*.qcow2"):
            old.unlink()
        start = time.monotonic()
        vendor_image.make(path, SYSTEMS[system])
        print(f"==> the image of {system}: made in {time.monotonic() - start:.0f} s", flush=True)
    return path
