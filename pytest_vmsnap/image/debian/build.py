"""The building of a Debian: mmdebstrap makes the root, and a disk is made of it.

All of it runs without mounting anything and, for an ordinary user, without rights: mke2fs fills the file
system from a directory, and fakeroot remembers whose file is whose.
"""

from __future__ import annotations

import io
import os
import re
import secrets
import shutil
import signal
import subprocess
import tarfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import ImageError, tail
from pytest_vmsnap.image import commands
from pytest_vmsnap.image.debian import initrd, mirror, tools
from pytest_vmsnap.image.debian.recipe import DISK_MIB

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import IO

    from pytest_vmsnap.image.debian.recipe import Recipe
    from pytest_vmsnap.progress import Step

DISK, KERNEL, INITRD = "disk.qcow2", "kernel", "initrd"
END_SECONDS = 30.0

# One script, so that one fakeroot knows the owners from unpacking to packing. lazy_*_init: else the guest's
# kernel goes on with making the file system, in every clone anew.
PACK = """\
set -eu
mkdir "$1"
tar -xpf - --numeric-owner --exclude='./dev/*' -C "$1"
truncate -s "$3"M "$2"
mke2fs -q -F -t ext4 -m 0 -L root -E lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0 -d "$1" "$2"
"""


def build(plan: Recipe, draft: Path, step: Step) -> None:
    """Make disk, kernel and initrd of `plan` in the directory `draft`; nothing else stays in it.

    Raises `ImageError` with the last lines of what failed.
    """
    mode = tools.mode()
    work = draft / "work"
    work.mkdir()
    try:
        overlay = work / "overlay.tar"
        _write_overlay(plan, overlay)
        root, raw = work / "root", work / "disk.raw"
        _bootstrap(plan, mode, overlay, root, raw, step)
        step.say("taking out the kernel")
        _take_kernel(plan, root, draft)
        shutil.rmtree(root)
        step.say("writing the disk")
        commands.run(
            ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(draft / DISK)],
            failed="the disk cannot be written",
            install=tools.INSTALL,
        )
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _write_overlay(plan: Recipe, target: Path) -> None:
    """The recipe's files as a tar file, owned by root."""
    machine_id = secrets.token_hex(16) + "\n"
    with tarfile.open(target, "w") as archive:
        for name, content in {**plan.files, "/etc/machine-id": machine_id}.items():
            member = tarfile.TarInfo(f".{name}")
            member.mode = 0o755 if content.startswith("#!") else 0o644
            member.size = len(content.encode())
            archive.addfile(member, io.BytesIO(content.encode()))
        for name, points_to in plan.links.items():
            member = tarfile.TarInfo(f".{name}")
            member.type, member.linkname, member.mode = tarfile.SYMTYPE, points_to, 0o777
            archive.addfile(member)


def _bootstrap(plan: Recipe, mode: tools.Mode, overlay: Path, root: Path, raw: Path, step: Step) -> None:
    """mmdebstrap, piped into what makes a directory and a file system of it."""
    # In unshare mode another user id does the work, which cannot reach into the store: /tmp (or TMPDIR) then.
    place = None if mode == "unshare" else overlay.parent
    bootstrap = ["mmdebstrap", f"--mode={mode}", *plan.options, *plan.hooks(str(overlay)), plan.suite, "-"]
    bootstrap += mirror.of_this_host(plan.suite)
    pack = ["sh", "-c", PACK, "pack", str(root), str(raw), str(DISK_MIB)]
    if mode != "root":
        pack = ["fakeroot", "--", *pack]
    log = overlay.with_name("pack.log")
    with (
        log.open("wb") as errors,
        _running(bootstrap, stdout=subprocess.PIPE, stderr=subprocess.PIPE, place=place) as made,
    ):
        assert made.stdout  # noqa: S101 - for mypy: both are pipes
        assert made.stderr  # noqa: S101
        with _running(pack, stdin=made.stdout, stderr=errors) as packed:
            made.stdout.close()  # so that mmdebstrap hears of it where `pack` ends early
            said = _follow(made.stderr, step)
            statuses = made.wait(), packed.wait()
    if statuses[1] and (words := log.read_text(errors="replace")) and "tar:" not in words:
        raise ImageError(f"the file system of debian:{plan.suite} cannot be made:\n{tail(words)}")
    if statuses[0]:
        raise _failure(plan, said)
    if statuses[1]:
        raise ImageError(f"the root of debian:{plan.suite} cannot be unpacked:\n{tail(log.read_text())}")


@contextmanager
def _running(
    command: Sequence[str],
    *,
    stdin: IO[str] | int = subprocess.DEVNULL,
    stdout: int = subprocess.DEVNULL,
    stderr: IO[bytes] | int,
    place: Path | None = None,
) -> Iterator[subprocess.Popen[str]]:
    """A helper process in a group of its own, which ends with the body, however that ends.

    `place` is where it keeps temporary files.
    """
    environment = commands.environment(**({"TMPDIR": str(place)} if place else {}))
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
        encoding="utf-8",
        errors="replace",
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)  # mmdebstrap then removes its own directory
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        for stream in (process.stdout, process.stderr):
            if stream:
                stream.close()


def _follow(stream: IO[str], step: Step) -> str:
    """What mmdebstrap says, to its end; its stages are shown."""
    lines = []
    for line in stream:
        lines.append(line)
        if line.startswith("I: "):
            step.say(line.removeprefix("I: ").strip().rstrip("."))
    return "".join(lines)


def _failure(plan: Recipe, said: str) -> ImageError:
    """What went wrong in mmdebstrap, with what to do about it."""
    hint = ""
    if re.search(r"NO_PUBKEY|EXPKEYSIG|not signed|signature(s)? (couldn't|could not)|Missing key", said):
        hint = "the keys of Debian are missing or old: install the package debian-archive-keyring"
    elif re.search(r"does not have a Release file|404 +Not Found", said):
        hint = f"is {plan.suite} a suite of Debian that still is on the mirror? E.g. debian:trixie"
    elif re.search(r"Unable to locate package|has no installation candidate|no package .* found", said):
        hint = f"a package of vmsnap_packages is not in {plan.suite}"
    elif re.search(
        r"Could not resolve|Temporary failure resolving|Could not connect|Network is unreachable", said
    ):
        hint = "is there a network, is a proxy needed (http_proxy)?"
    elif re.search(r"unshare|newuidmap|user namespace", said):
        hint = (
            "this host may forbid user namespaces to ordinary users "
            "(Ubuntu: sysctl kernel.apparmor_restrict_unprivileged_userns)"
        )
    return ImageError(
        f"debian:{plan.suite} cannot be built; mmdebstrap's last lines:\n{tail(said, 12)}", hint=hint
    )


def _take_kernel(plan: Recipe, root: Path, draft: Path) -> None:
    """Kernel and initrd out of the root, for direct boot."""
    kernels = sorted((root / "boot").glob("vmlinuz-*"))
    if not kernels:
        raise ImageError(f"debian:{plan.suite} has no kernel in /boot", hint="is a linux-image package in it?")
    kernel = kernels[-1]
    shutil.copyfile(kernel, draft / KERNEL)
    if plan.trim:
        initrd.make(root, draft / INITRD)
    else:
        shutil.copyfile(kernel.with_name(kernel.name.replace("vmlinuz", "initrd.img")), draft / INITRD)
