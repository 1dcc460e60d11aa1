"""Pull states from the registry, or fetch vendors' images, to have them before a run needs them."""

# ruff: noqa: T201 - a command's output

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_vmsnap import states
from pytest_vmsnap.cli import stored_states
from pytest_vmsnap.errors import ImageError, UnknownState
from pytest_vmsnap.image.vendors import is_vendor_name, parse_name
from pytest_vmsnap.progress import Progress

if TYPE_CHECKING:
    import argparse

    from pytest_vmsnap.model import Settings

NAME = "pull"


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `vmsnap pull`."""
    parser.add_argument(
        "names",
        metavar="NAME",
        nargs="+",
        help="a state in the registry: NAME, as it was pushed last, or NAME@KEY; or a vendor's image, "
        "e.g. ubuntu:24.04 (see vmsnap images)",
    )
    parser.set_defaults(run=run)


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Fetch each. Raises `ImageError` if the vendor does not have an image, `UnknownState`, `RegistryError`."""
    for written in arguments.names:
        if is_vendor_name(written):
            _pull_image(settings, written)
        elif ":" in written or settings.registry is None:  # the name of a state has no colon
            raise ImageError(
                f"{written!r} is not a vendor's image",
                hint="`vmsnap images` lists the names; to pull a state by its name, set vmsnap_registry "
                "(VMSNAP_REGISTRY) to oci://HOST/REPOSITORY",
            )
        else:
            _pull_state(settings, written)
    return 0


def _pull_state(settings: Settings, written: str) -> None:
    registry = stored_states.registry(settings)
    store = stored_states.open_store(settings, own=True)
    progress = Progress(print)
    found = states.pull_state(
        store, registry, written, root=settings.root, progress=progress, pinned=states.read_lock(settings.root)
    )
    if found is None:
        raise UnknownState(
            f"the registry {registry.address} has no state {written}", hint="`vmsnap push` pushes one"
        )
    name, received = found
    origin = states.origin_of(store.place(name))
    how = f"{received / 1e6:.0f} MB received" if received else "it was in the store already"
    print(f"{origin.name}@{name.key[: stored_states.SHOWN]}: {how}")


def _pull_image(settings: Settings, written: str) -> None:
    from pytest_vmsnap.image.vendors.provide import fetch, resolution_of  # late: it imports requests

    name = parse_name(written)
    store = stored_states.open_store(settings, own=True)
    before = resolution_of(store, name)
    now = fetch(name, mirror=settings.image_mirror, store=store, progress=Progress(print))
    is_same = before is not None and before.published.checksum == now.checksum
    print(f"{name}: {now.checksum}, {'as before' if is_same else 'new'}")
