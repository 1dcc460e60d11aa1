"""Build a Debian image: mmdebstrap makes the root, which is then packed into a disk.

Nothing is mounted for the disk, and an ordinary user needs no privileges: mke2fs fills the file system from a
directory, and fakeroot remembers the owner of each file.
"""

from __future__ import annotations

import errno
import io
import os
import re
import secrets
import shutil
import signal
import subprocess
import tarfile
import tempfile
from contextlib import contextmanager, suppress
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

# One script, so that one fakeroot knows the owners from unpacking to packing. lazy_*_init=0: otherwise the
# guest's kernel finishes the initialisation of the file system, again in every clone.
PACK = """\
set -eu
mkdir "$1"
tar -xpf - --numeric-owner --exclude='./dev/*' -C "$1"
truncate -s "$3"M "$2"
mke2fs -q -F -t ext4 -m 0 -L root -E lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0 -d "$1" "$2"
"""

_CUT_OFF = re.compile(r"does not look like a tar archive|Unexpected EOF")
_NO_SPACE = os.strerror(errno.ENOSPC)
_NO_COMPLAINT = ("I: ", "W: Download is performed unsandboxed")  # prefixes of mmdebstrap's lines

# Messages of mmdebstrap and apt, and what to do about them.
_COMPLAINTS = (
    (_NO_SPACE, "there is no space left in {temporary}: free some space, or set TMPDIR to another directory"),
    (
        r"NO_PUBKEY|EXPKEYSIG|not signed|[Ss]ignatures? (couldn't|could not)|[Mm]issing key",
        tools.MISSING_KEYS,
    ),
    (
        r"does not have a Release file|404 +Not Found",
        "check that {suite} is a Debian suite that is still on the mirror, e.g. debian:trixie",
    ),
    (
        r"Unable to locate package|has no installation candidate|no package .* found",
        "a package of vmsnap_packages is not in {suite}",
    ),
    (
        r"Could not resolve|Temporary failure resolving|Could not connect|Network is unreachable",
        "check the network and the proxy (http_proxy)",
    ),
    (
        r"unshare|newuidmap|user namespace",
        "this host may forbid user namespaces to ordinary users "
        "(Ubuntu: sysctl kernel.apparmor_restrict_unprivileged_userns)",
    ),
)


def build(plan: Recipe, draft: Path, step: Step) -> None:
    """Build disk, kernel and initrd of `plan` in the directory `draft`; nothing else stays there.

    Raises `ImageError` with the last lines of the program that failed, `OSError` if there is no space left.
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
    """Write the recipe's files, owned by root, to the tar file `target`."""
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
    """Pipe mmdebstrap into the script that makes a directory and a file system from its output."""
    # In unshare mode mmdebstrap has another user id, which cannot access the store; it uses /tmp (or TMPDIR).
    place = None if mode == "unshare" else overlay.parent
    bootstrap = ["mmdebstrap", f"--mode={mode}", *plan.options, *plan.hooks(str(overlay)), plan.suite, "-"]
    bootstrap += mirror.of_this_host(plan.suite)
    if mode == "root":
        bootstrap = [*tools.private_mounts_prefix(), *bootstrap]
    pack = ["sh", "-c", PACK, "pack", str(root), str(raw), str(DISK_MIB)]
    if mode != "root":
        pack = ["fakeroot", "--", *pack]
    log = overlay.with_name("pack.log")
    read, write = (os.fdopen(end, mode) for end, mode in zip(os.pipe(), ("rb", "wb"), strict=True))
    # The order matters: after mmdebstrap, `pack` ends by itself, and fakeroot ends its daemon. The daemon has a
    # session of its own, so it would survive a signal to the group.
    with read, log.open("wb") as errors, _running(pack, stdin=read, stderr=errors, patient=True) as packed:
        read.close()  # so that mmdebstrap notices if `pack` ends early
        with write, _running(bootstrap, stdout=write, stderr=subprocess.PIPE, place=place) as made:
            write.close()
            assert made.stderr  # noqa: S101 - for mypy: it is a pipe
            said = _follow(made.stderr, step)
            statuses = made.wait(), packed.wait()
    words = log.read_text(errors="replace")
    if statuses[1] and (statuses[0] == 0 or not _CUT_OFF.search(words)):  # else mmdebstrap failed first
        _check_space(words)
        raise ImageError(f"the disk of debian:{plan.suite} cannot be made:\n{tail(words)}")
    if statuses[0]:
        if place:
            _check_space(said)
        raise _failure(plan, said)


def _check_space(words: str) -> None:
    """Raise `OSError` for the store if the output of a helper says that there is no space left."""
    if _NO_SPACE in words:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextmanager
def _running(
    command: Sequence[str],
    *,
    stdin: IO[bytes] | int = subprocess.DEVNULL,
    stdout: IO[bytes] | int = subprocess.DEVNULL,
    stderr: IO[bytes] | int,
    place: Path | None = None,
    patient: bool = False,
) -> Iterator[subprocess.Popen[str]]:
    """Start a helper process in a group of its own, and end it with the block in any case.

    `place` is its directory for temporary files. If `patient`, wait first for the process to end by itself.
    """
    process = subprocess.Popen(
        command,
        env=commands.environment(**({"TMPDIR": str(place)} if place else {})),
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
        if not (patient and _ends(process)):
            _end(process)
        if process.stderr:
            process.stderr.close()


def _end(process: subprocess.Popen[str]) -> None:
    """End a process and its group; mmdebstrap removes its own directory before it ends."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        _ends(process)
        with suppress(ProcessLookupError):  # the whole group has ended
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _ends(process: subprocess.Popen[str]) -> bool:
    """Wait for the process; return whether it ends before the deadline."""
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return True


def _follow(stream: IO[str], step: Step) -> str:
    """Return mmdebstrap's output up to its end, and show its stages as progress."""
    lines = []
    for line in stream:
        lines.append(line)
        if line.startswith("I: "):
            stage = line.removeprefix("I: ").strip().rstrip(".")
            step.say("setting up" if "--customize-hook" in stage else stage)
    return "".join(lines)


def _failure(plan: Recipe, said: str) -> ImageError:
    """The error for a failure of mmdebstrap, with a hint on what to do."""
    words = "\n".join(line for line in said.splitlines() if not line.startswith(_NO_COMPLAINT))
    hint = next((hint for pattern, hint in _COMPLAINTS if re.search(pattern, words)), "")
    return ImageError(
        f"debian:{plan.suite} cannot be built; mmdebstrap's last lines:\n{tail(words, 12)}",
        hint=hint.format(suite=plan.suite, temporary=tempfile.gettempdir()),
    )


def _take_kernel(plan: Recipe, root: Path, draft: Path) -> None:
    """Copy kernel and initrd from the root, for direct boot; build the initrd if the image is trimmed."""
    kernels = sorted((root / "boot").glob("vmlinuz-*"))
    if not kernels:
        raise ImageError(f"debian:{plan.suite} has no kernel in /boot", hint="is a linux-image package in it?")
    kernel = kernels[-1]
    shutil.copyfile(kernel, draft / KERNEL)
    if plan.trim:
        initrd.make(root, draft / INITRD)
    else:
        shutil.copyfile(kernel.with_name(kernel.name.replace("vmlinuz", "initrd.img")), draft / INITRD)
