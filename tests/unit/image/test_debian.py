from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap.errors import ImageError
from pytest_vmsnap.image.debian import provide_debian, tools
from pytest_vmsnap.image.debian.build import DISK, INITRD, KERNEL, build
from pytest_vmsnap.image.debian.provide import META, key_of
from pytest_vmsnap.image.debian.recipe import Recipe
from pytest_vmsnap.progress import Step

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_vmsnap.progress import Progress
    from pytest_vmsnap.store import Store

    Replace = Callable[[str], Path]

TRIXIE = Recipe(suite="trixie", packages=())

needs_tools = pytest.mark.skipif(
    not all(shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") for name in ("mke2fs", "debugfs"))
    or (os.geteuid() != 0 and not shutil.which("fakeroot")),
    reason="needs e2fsprogs, and fakeroot for an ordinary user",
)


@pytest.fixture
def replace_mmdebstrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Replace:
    """Puts a shell script in mmdebstrap's place; what is around it is real."""
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")

    def replace(script: str) -> Path:
        program = programs / "mmdebstrap"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        return program

    return replace


@pytest.fixture
def anyone_may_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A range of user ids, so that an ordinary user gets as far as mmdebstrap."""
    path = tmp_path / "subordinate"
    path.write_text(f"{os.getuid()}:100000:65536\n")
    monkeypatch.setattr(tools, "SUBORDINATE", (path, path))


@pytest.fixture
def draft(tmp_path: Path) -> Path:
    path = tmp_path / "a draft"
    path.mkdir()
    return path


def silent_step() -> Step:
    return Step("building", lambda _line: None)


def write_root(target: Path) -> None:
    """A tar file with the least that is taken for a Debian's root."""
    files = {
        "boot/vmlinuz-6.12": b"the kernel",
        "usr/bin/busybox": b"busybox",
        "lib64/ld-linux-x86-64.so.2": b"loader",
        "usr/lib/x86_64-linux-gnu/libc.so.6": b"libc",
        "usr/lib/x86_64-linux-gnu/libresolv.so.2": b"libresolv",
        "usr/lib/modules/6.12/modules.dep": b"fs/ext4.ko: lib/crc.ko\nlib/crc.ko:\ndrivers/virtio_blk.ko:\n",
        "usr/lib/modules/6.12/fs/ext4.ko": b"ext4",
        "usr/lib/modules/6.12/lib/crc.ko": b"crc",
        "usr/lib/modules/6.12/drivers/virtio_blk.ko": b"virtio_blk",
        "etc/shadow": b"root:::",
    }
    with tarfile.open(target, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size, member.mode = len(content), 0o640
            member.gid = 42 if name == "etc/shadow" else 0
            archive.addfile(member, io.BytesIO(content))


def entry_of(store: Store, plan: Recipe, *, built: float) -> Path:
    """An image in the store, as if built before."""

    def fill(draft: Path) -> None:
        for name in (DISK, KERNEL, INITRD):
            (draft / name).write_bytes(b"content")
        sizes = dict.fromkeys((DISK, KERNEL, INITRD), 7)
        (draft / META).write_text(json.dumps({"built": built, "sizes": sizes}))

    return store.provide("images", key_of(plan), "image", fill)


def test_what_is_in_the_image_is_in_the_key() -> None:
    plans = [
        TRIXIE,
        Recipe(suite="bookworm", packages=()),
        Recipe(suite="trixie", packages=("vim",)),
        Recipe(suite="trixie", packages=(), trim=False),
    ]
    assert len({key_of(plan) for plan in plans}) == len(plans)


def test_the_order_of_packages_is_not_in_the_key(store: Store, progress: Progress) -> None:
    entry_of(store, Recipe(suite="trixie", packages=("nano", "vim")), built=time.time())
    one = provide_debian("debian:trixie", "trixie", ("vim", "nano"), store=store, progress=progress)
    two = provide_debian("debian:trixie", "trixie", ("nano", "vim", "vim"), store=store, progress=progress)
    assert one.key == two.key


def test_a_kernel_among_the_packages_replaces_the_own_one() -> None:
    include = Recipe(suite="trixie", packages=("linux-image-amd64",)).include
    assert [package for package in include if package.startswith("linux-image")] == ["linux-image-amd64"]


@pytest.mark.parametrize("suite", ["", "trixie --keyring=/x", "-q", "../etc"])
def test_what_names_no_suite_is_refused(store: Store, progress: Progress, suite: str) -> None:
    with pytest.raises(ImageError, match="is not a valid name of a Debian suite"):
        provide_debian(f"debian:{suite}", suite, (), store=store, progress=progress)


@pytest.mark.parametrize("package", ["vim,nano", "?essential", "-x", "", "Vim", "./local.deb"])
def test_what_names_no_package_is_refused(store: Store, progress: Progress, package: str) -> None:
    with pytest.raises(ImageError, match="is not a valid name of a Debian package"):
        provide_debian("debian:trixie", "trixie", (package,), store=store, progress=progress)


def test_an_image_in_the_store_is_used_without_a_word(
    store: Store, progress: Progress, said: list[str]
) -> None:
    now = time.time()
    entry = entry_of(store, TRIXIE, built=now)
    image = provide_debian("debian:trixie", "trixie", (), store=store, progress=progress)
    assert (image.disk, image.kernel, image.initrd) == (entry / DISK, entry / KERNEL, entry / INITRD)
    assert image.built == now
    assert image.cmdline
    assert image.cmdline.startswith("root=/dev/vda rw console=ttyS0")
    assert said == []


def test_an_old_image_says_its_age_and_how_to_renew_it(
    store: Store, progress: Progress, said: list[str]
) -> None:
    entry = entry_of(store, TRIXIE, built=time.time() - 40 * 24 * 3600)
    provide_debian("debian:trixie", "trixie", (), store=store, progress=progress)
    assert said == [f"the image debian:trixie is 40 days old; to build it again, remove {entry}"]


@needs_tools
@pytest.mark.usefixtures("anyone_may_build")
@pytest.mark.parametrize("damage", ["shorten", "remove", "meta"])
def test_a_damaged_image_is_built_anew_and_said(
    tmp_path: Path, store: Store, progress: Progress, said: list[str], replace_mmdebstrap: Replace, damage: str
) -> None:
    entry = entry_of(store, TRIXIE, built=time.time())
    match damage:
        case "shorten":
            os.truncate(entry / DISK, 3)
        case "remove":
            (entry / KERNEL).unlink()
        case _:
            (entry / META).write_text("{")
    write_root(tmp_path / "root.tar")
    replace_mmdebstrap(f"cat {tmp_path}/root.tar")
    image = provide_debian("debian:trixie", "trixie", (), store=store, progress=progress)
    assert image.kernel
    assert image.kernel.read_bytes() == b"the kernel"
    assert "the image debian:trixie in the store is damaged: building it again" in said
    assert [path.name for path in (store.path / "images").iterdir()] == [entry.name]


@needs_tools
@pytest.mark.usefixtures("anyone_may_build")
def test_the_disk_has_the_owners_of_the_root_whoever_builds(
    tmp_path: Path, draft: Path, replace_mmdebstrap: Replace
) -> None:
    write_root(tmp_path / "root.tar")
    replace_mmdebstrap(f"cat {tmp_path}/root.tar")
    build(TRIXIE, draft, silent_step())
    raw = tmp_path / "raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", draft / DISK, raw], check=True)
    found = subprocess.run(
        ["debugfs", "-R", "stat /etc/shadow", raw],
        env={"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"},
        capture_output=True,
        text=True,
        check=True,
    )
    fields = found.stdout.split()
    assert fields[fields.index("User:") + 1] == "0"
    assert fields[fields.index("Group:") + 1] == "42"
    assert fields[fields.index("Mode:") + 1] == "0640"


@needs_tools
@pytest.mark.usefixtures("anyone_may_build")
def test_nothing_but_the_image_stays_in_the_draft(
    tmp_path: Path, draft: Path, replace_mmdebstrap: Replace
) -> None:
    write_root(tmp_path / "root.tar")
    replace_mmdebstrap(f"cat {tmp_path}/root.tar")
    build(TRIXIE, draft, silent_step())
    assert sorted(path.name for path in draft.iterdir()) == sorted([DISK, KERNEL, INITRD])


@needs_tools
@pytest.mark.usefixtures("anyone_may_build")
def test_the_initrd_has_the_modules_in_the_order_of_their_loading(
    tmp_path: Path, draft: Path, replace_mmdebstrap: Replace
) -> None:
    write_root(tmp_path / "root.tar")
    replace_mmdebstrap(f"cat {tmp_path}/root.tar")
    build(TRIXIE, draft, silent_step())
    names = [name for name in members(draft / INITRD) if name.startswith("modules/")]
    assert names == ["modules/00-virtio_blk.ko", "modules/01-crc.ko", "modules/02-ext4.ko"]
    assert {"init", "bin/busybox", "lib/libc.so.6"} <= members(draft / INITRD).keys()


def members(archive: Path) -> dict[str, bytes]:
    """Name and content of each file of a cpio archive ("newc")."""
    data = archive.read_bytes()
    found: dict[str, bytes] = {}
    while True:
        assert data[:6] == b"070701"
        numbers = [int(data[6 + 8 * n : 14 + 8 * n], 16) for n in range(13)]
        size, length = numbers[6], numbers[11]
        name = data[110 : 110 + length - 1].decode()
        if name == "TRAILER!!!":
            return found
        start = -(-(110 + length) // 4) * 4
        found[name] = data[start : start + size]
        data = data[-(-(start + size) // 4) * 4 :]


@needs_tools
@pytest.mark.usefixtures("anyone_may_build")
@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (
            "E: The repository 'x nosuch Release' does not have a Release file.",
            "check that trixie is a Debian suite",
        ),
        ("W: GPG error: NO_PUBKEY 6ED0E7B82643E131", "debian-archive-keyring"),
        ("E: Unable to locate package vimm", "vmsnap_packages"),
        ("Err: Could not resolve 'mirror.example'", "check the network"),
        ("E: something else", ""),
    ],
)
def test_what_mmdebstrap_complains_of_is_shown_with_what_to_do(
    draft: Path, replace_mmdebstrap: Replace, words: str, hint: str
) -> None:
    replace_mmdebstrap(f'echo "I: running apt-get update..." >&2; echo "{words}" >&2; exit 1')
    with pytest.raises(ImageError, match=r"debian:trixie cannot be built") as caught:
        build(TRIXIE, draft, silent_step())
    assert words in caught.value.message
    assert hint in caught.value.hint
    assert list(draft.iterdir()) == []


@needs_tools
@pytest.mark.usefixtures("anyone_may_build")
def test_ctrl_c_ends_mmdebstrap_and_leaves_nothing(
    tmp_path: Path, draft: Path, replace_mmdebstrap: Replace
) -> None:
    replace_mmdebstrap(
        f"trap 'echo ended >{tmp_path}/ended; exit 1' TERM\n"
        f"echo $$ >{tmp_path}/pid; echo 'I: started' >&2; while :; do sleep 60 & wait; done"
    )

    class Interrupted(Step):
        def say(self, _detail: str) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(TRIXIE, draft, Interrupted("building", lambda _line: None))
    assert (tmp_path / "ended").read_text() == "ended\n"
    assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()
    assert list(draft.iterdir()) == []


@needs_tools
@pytest.mark.usefixtures("anyone_may_build")
def test_a_root_without_a_kernel_is_refused(tmp_path: Path, draft: Path, replace_mmdebstrap: Replace) -> None:
    subprocess.run(["tar", "-cf", tmp_path / "root.tar", "--files-from=/dev/null"], check=True)
    replace_mmdebstrap(f"cat {tmp_path}/root.tar")
    with pytest.raises(ImageError, match="has no kernel"):
        build(TRIXIE, draft, silent_step())


def test_a_missing_tool_names_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("pytest_vmsnap.image.commands.SYSTEM_DIRECTORIES", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ImageError, match="mmdebstrap, mke2fs, qemu-img, tar are missing") as caught:
        tools.mode()
    for words in ("apt install mmdebstrap uidmap fakeroot e2fsprogs qemu-utils", "Fedora", "Arch", "PATH"):
        assert words in caught.value.hint


@pytest.mark.skipif(os.geteuid() == 0, reason="root needs no range")
@pytest.mark.skipif(not shutil.which("newuidmap"), reason="needs uidmap")
@pytest.mark.skipif(bool(shutil.which("fakechroot")), reason="fakechroot needs no range")
def test_a_user_without_subordinate_ids_is_told_how_to_get_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, replace_mmdebstrap: Replace
) -> None:
    replace_mmdebstrap("true")
    monkeypatch.setattr(tools, "SUBORDINATE", (tmp_path / "none", tmp_path / "none"))
    with pytest.raises(ImageError, match="has no subordinate user ids") as caught:
        tools.mode()
    assert "usermod --add-subuids" in caught.value.hint
