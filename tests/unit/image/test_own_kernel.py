"""A kernel of the user's own, and its modules."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap.errors import ImageError
from pytest_vmsnap.image.debian.initrd import OWN_INIT, member, with_other_modules
from pytest_vmsnap.image.own_kernel import expect_usable, find_modules, with_modules, with_own_kernel
from pytest_vmsnap.model import Image, ImageRequest

from .test_debian import members

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_vmsnap.progress import Progress
    from pytest_vmsnap.store import Store

RELEASE = "6.1.0-test"
DEPENDENCIES = """\
kernel/virtio_blk.ko:
kernel/crc.ko:
kernel/ext4.ko: kernel/crc.ko
kernel/virtio_console.ko:
kernel/unused.ko:
"""
LOADED = ["virtio_blk", "crc", "ext4", "virtio_console"]


def install_modules(place: Path, release: str = RELEASE) -> Path:
    """What ``make modules_install INSTALL_MOD_PATH=place`` writes."""
    directory = place / "lib/modules" / release
    (directory / "kernel").mkdir(parents=True)
    for name in ("virtio_blk", "crc", "ext4", "virtio_console", "unused"):
        (directory / f"kernel/{name}.ko").write_bytes(name.encode())
    (directory / "modules.dep").write_text(DEPENDENCIES)
    return directory


@pytest.fixture
def image(tmp_path: Path) -> Image:
    initrd = tmp_path / "debian-initrd"
    old = member("init", 0o100755, b"old") + member("modules/00-ext4.ko", 0o100644, b"of another kernel")
    initrd.write_bytes(old + member("TRAILER!!!", 0, b""))
    kernel = tmp_path / "debian-kernel"
    kernel.write_bytes(b"debian")
    return Image(
        key="debian",
        origin="debian:trixie",
        disk=tmp_path / "disk",
        format="qcow2",
        kernel=kernel,
        initrd=initrd,
        cmdline="root=/dev/vda",
        has_shell=True,
    )


def request(tmp_path: Path, **parts: str) -> ImageRequest:
    for name in ("vmlinuz", "my-initrd"):
        (tmp_path / name).write_bytes(name.encode())
    return ImageRequest(image="debian:trixie", root=tmp_path, **parts)  # type: ignore[arg-type]


def test_a_kernel_replaces_that_of_the_image_and_keeps_its_initrd_and_command_line(
    tmp_path: Path, image: Image
) -> None:
    found = with_own_kernel(image, request(tmp_path, kernel="vmlinuz"))
    assert (found.kernel, found.initrd, found.cmdline) == (tmp_path / "vmlinuz", image.initrd, image.cmdline)
    assert found.key != image.key
    (tmp_path / "vmlinuz").write_bytes(b"another build")
    again = with_own_kernel(image, ImageRequest(image="debian:trixie", root=tmp_path, kernel="vmlinuz"))
    assert again.key != found.key


def test_an_initrd_and_a_command_line_replace_those_of_the_image(tmp_path: Path, image: Image) -> None:
    found = with_own_kernel(image, request(tmp_path, kernel="vmlinuz", initrd="my-initrd", cmdline="debug"))
    assert (found.initrd, found.cmdline) == (tmp_path / "my-initrd", "debug")
    line_alone = with_own_kernel(image, request(tmp_path, cmdline="debug"))
    assert (line_alone.kernel, line_alone.cmdline) == (image.kernel, "debug")
    assert line_alone.key != image.key
    assert with_own_kernel(image, request(tmp_path)) is image


def test_the_initrd_loads_the_modules_of_the_users_kernel_alone(tmp_path: Path, image: Image) -> None:
    assert image.initrd
    directory = install_modules(tmp_path)
    with_other_modules(image.initrd, directory, tmp_path / "initrd")
    data = (tmp_path / "initrd").read_bytes()
    assert data.startswith(image.initrd.read_bytes())
    second = tmp_path / "second"
    second.write_bytes(data[-(-image.initrd.stat().st_size // 4) * 4 :])
    found = members(second)
    names = [name for name in found if name.startswith("own-modules/")]
    assert names == [f"own-modules/{number:02}-{name}.ko" for number, name in enumerate(LOADED)]
    assert found["init"].decode().startswith(OWN_INIT.splitlines()[0])
    assert f"/usr/lib/modules/{RELEASE}" in found["init"].decode()


@pytest.mark.skipif(not shutil.which("mke2fs"), reason="needs mke2fs")
def test_the_modules_are_a_disk_that_changes_with_them(
    tmp_path: Path, image: Image, store: Store, progress: Progress
) -> None:
    directory = install_modules(tmp_path / "installed")
    asked = request(tmp_path, kernel="vmlinuz", modules="installed")
    found = with_modules(image, asked, store=store, progress=progress)
    assert found.modules
    assert found.modules_release == RELEASE
    assert found.initrd != image.initrd
    listed = subprocess.run(
        ["debugfs", "-R", "ls -p /kernel", found.modules], capture_output=True, text=True, check=True
    )
    assert "unused.ko" in listed.stdout
    assert with_modules(image, asked, store=store, progress=progress) == found
    (directory / "kernel/unused.ko").write_bytes(b"of another build")
    assert with_modules(image, asked, store=store, progress=progress).key != found.key


@pytest.mark.parametrize("below", ["", "lib/modules/" + RELEASE, "lib/modules"])
def test_modules_are_found_where_users_look_for_them(tmp_path: Path, below: str) -> None:
    directory = install_modules(tmp_path / "installed")
    assert find_modules(f"installed/{below}", tmp_path) == directory


def test_modules_that_cannot_be_used_say_what_is_missing(tmp_path: Path) -> None:
    asked = request(tmp_path, kernel="vmlinuz", modules="installed")
    with pytest.raises(ImageError, match="installed are not a directory"):
        expect_usable(asked)
    directory = install_modules(tmp_path / "installed")
    (directory / "modules.dep").unlink()
    with pytest.raises(ImageError, match=r"no modules\.dep there"):
        expect_usable(asked)
    shutil.rmtree(tmp_path / "installed")
    for release in ("6.1.0", "6.2.0"):
        install_modules(tmp_path / "installed", release)
    with pytest.raises(ImageError, match=r"modules of several kernels: 6\.1\.0, 6\.2\.0"):
        expect_usable(asked)
