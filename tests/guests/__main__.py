"""Runs the contract on each guest: `tests/guests/run`."""

# ruff: noqa: T201 - a command's output

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from pytest_vmsnap.model import digest

from . import vendor_image
from .vendor_image import PASSWORD, SYSTEMS

ROOT = Path(__file__).parents[2]
ALL = ("tests/guest", "--ignore=tests/guest/system")
SHORT = ("tests/guest/test_power.py", "tests/guest/test_waits.py")
LOGIN = ("--vmsnap-console-user=root", f"--vmsnap-console-password={PASSWORD}")


@dataclass(frozen=True, kw_only=True)
class Guest:
    """A guest: its image, one of `SYSTEMS` or a value of ``vmsnap_image``, and the options that it needs."""

    system: str = ""
    image: str = ""
    options: tuple[str, ...] = ()


GUESTS = {
    "debian-12": Guest(image="debian:bookworm"),
    "debian-13": Guest(image="debian:trixie"),
    "debian-sid": Guest(image="debian:sid"),
    "debian-13-uefi": Guest(image="debian:trixie", options=("--vmsnap-firmware=uefi",)),
    "cloud-bios": Guest(system="cloud"),
    "cloud-uefi": Guest(system="cloud", options=("--vmsnap-firmware=uefi",)),
    "cloud-secure": Guest(system="cloud", options=("--vmsnap-firmware=uefi-secure",)),
    "sysvinit": Guest(system="sysvinit", options=LOGIN),
    "openrc": Guest(system="openrc", options=LOGIN),
    "runit": Guest(system="runit", options=LOGIN),
    "selinux": Guest(system="selinux", options=(*LOGIN, "--vmsnap-memory=1G")),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests/guests/run", description=__doc__)
    parser.add_argument("--short", action="store_true", help=f"only {' '.join(SHORT)}: boots, power, waits")
    parser.add_argument("guests", nargs="*", metavar="GUEST", help=f"one of {', '.join(GUESTS)} (default: all)")
    arguments = parser.parse_args()
    names = arguments.guests or list(GUESTS)
    if unknown := [name for name in names if name not in GUESTS]:
        parser.error(f"unknown guests: {', '.join(unknown)}")
    failed = [name for name in names if not run_contract(name, GUESTS[name], SHORT if arguments.short else ALL)]
    print(f"guests: {len(names) - len(failed)} passed the contract, {len(failed)} failed", flush=True)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def run_contract(name: str, guest: Guest, paths: tuple[str, ...]) -> bool:
    """Run the contract in `paths` on the guest, and show how long it took; returns whether it passed."""
    image = guest.image or str(image_of(guest.system))
    print(f"==> {name}", flush=True)
    start = time.monotonic()
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "--no-header", "-m", "contract and not thorough"]
    options = [f"--vmsnap-image={image}", *guest.options, "--vmsnap-timings"]
    done = subprocess.run([*command, *options, *paths], cwd=ROOT, check=False, env=os.environ)
    print(f"==> {name}: status {done.returncode} after {time.monotonic() - start:.0f} s", flush=True)
    return done.returncode == 0


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


if __name__ == "__main__":
    main()
