"""Get the image ``debian:SUITE`` from the store, or build it."""

from __future__ import annotations

import json
import platform
import re
import shutil
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pytest_vmsnap.errors import ImageError
from pytest_vmsnap.image.debian import recipe
from pytest_vmsnap.image.debian.build import DISK, INITRD, KERNEL, build
from pytest_vmsnap.model import NO_ADDITIONS, Additions, Image, digest

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_vmsnap.progress import Progress
    from pytest_vmsnap.store import Store

META = "meta.json"
OLD_DAYS = 30
DAY = 24 * 60 * 60


def provide_debian(
    origin: str,
    suite: str,
    packages: tuple[str, ...],
    *,
    store: Store,
    progress: Progress,
    additions: Additions = NO_ADDITIONS,
    trim: bool = True,
) -> Image:
    """Return the image of Debian `suite` with `packages` and `additions` in addition to the recipe's own.

    `trim` is off only to measure what trimming gains.

    Raises `ImageError` if it cannot be built here.
    """
    plan = plan_of(suite, packages, additions=additions, trim=trim)
    key = key_of(plan)

    def fill(draft: Path) -> None:
        with progress.step(f"building the image {origin}") as step:
            build(plan, draft, step)
        _write_meta(draft, plan)

    _discard_damaged(store, key, origin, progress)
    entry = store.provide("images", key, f"image {origin}", fill)
    built = float(_meta(entry)["built"])
    _say_age(entry, origin, built, progress)
    return Image(
        key=key,
        origin=origin,
        disk=entry / DISK,
        format="qcow2",
        kernel=entry / KERNEL,
        initrd=entry / INITRD,
        cmdline=plan.cmdline,
        built=built,
        has_shell=bool(additions.files),
    )


def plan_of(
    suite: str, packages: tuple[str, ...], *, additions: Additions = NO_ADDITIONS, trim: bool = True
) -> recipe.Recipe:
    """Return the recipe of the image; raises `ImageError` for an invalid name of a suite or package."""
    _check_names(suite, packages)
    names = tuple(sorted(set(packages)))
    return recipe.Recipe(suite=suite, packages=names, trim=trim, additions=additions)


def key_of(plan: recipe.Recipe) -> str:
    """The key of the store's entry for `plan`."""
    return digest({"kind": "debian", "arch": platform.machine(), "recipe": plan.identity()})


def _check_names(suite: str, packages: tuple[str, ...]) -> None:
    """Raise `ImageError` for an invalid name: mmdebstrap gives other texts a meaning of their own."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", suite):
        raise ImageError(f"debian:{suite} is not a valid name of a Debian suite", hint="e.g. debian:trixie")
    for package in packages:
        if not re.fullmatch(r"[a-z0-9][a-z0-9+.-]+(:[a-z0-9]+)?(=[A-Za-z0-9.+~:-]+|/[a-z0-9.-]+)?", package):
            raise ImageError(f"{package!r} is not a valid name of a Debian package", hint="see vmsnap_packages")


def _write_meta(draft: Path, plan: recipe.Recipe) -> None:
    meta = {
        "suite": plan.suite,
        "packages": plan.packages,
        "built": time.time(),
        "sizes": {name: (draft / name).stat().st_size for name in (DISK, KERNEL, INITRD)},
    }
    (draft / META).write_text(json.dumps(meta, indent=1) + "\n")


def _meta(entry: Path) -> dict[str, Any]:
    try:
        meta: dict[str, Any] = json.loads((entry / META).read_text())
        if meta["sizes"] == {name: (entry / name).stat().st_size for name in meta["sizes"]}:
            float(meta["built"])
            return meta
    except (OSError, ValueError, TypeError, KeyError):
        pass
    raise ImageError(f"the image in {entry} is damaged", hint=f"remove it to build it again: rm -r {entry}")


def _discard_damaged(store: Store, key: str, origin: str, progress: Progress) -> None:
    entry = store.entry("images", key)
    if entry is None:
        return
    try:
        _meta(entry)
    except ImageError:
        progress.say(f"the image {origin} in the store is damaged: building it again")
        aside = entry.with_name(f".{key}.damaged")
        shutil.rmtree(aside, ignore_errors=True)
        with suppress(FileNotFoundError):  # another run was faster
            entry.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)


def _say_age(entry: Path, origin: str, built: float, progress: Progress) -> None:
    days = int((time.time() - built) / DAY)
    if days > OLD_DAYS:
        progress.say(f"the image {origin} is {days} days old; to build it again, remove {entry}")
