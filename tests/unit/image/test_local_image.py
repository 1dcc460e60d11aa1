from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from pytest_vmsnap.errors import ImageError, SpecError
from pytest_vmsnap.image import provide
from pytest_vmsnap.model import Image, ImageRequest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_vmsnap.progress import Progress
    from pytest_vmsnap.store import Store

    MakeDisk = Callable[..., Path]
    Ask = Callable[..., Image]


@pytest.fixture
def ask(tmp_path: Path, store: Store, progress: Progress) -> Ask:
    """Asks for an image, relative to the test's directory."""

    def provided(image: str | None, **parts: Any) -> Image:
        request = ImageRequest(image=image, root=tmp_path, **parts)
        return provide(request, store=store, progress=progress)

    return provided


def test_the_format_is_found_by_content_whatever_the_name_says(make_disk: MakeDisk, ask: Ask) -> None:
    make_disk("really-qcow2.img", "qcow2")
    make_disk("really-raw.qcow2", "raw")
    assert ask("really-qcow2.img").format == "qcow2"
    assert ask("really-raw.qcow2").format == "raw"


def test_a_path_is_relative_to_the_root(make_disk: MakeDisk, ask: Ask) -> None:
    path = make_disk("a.qcow2")
    assert ask("a.qcow2").disk == path
    assert ask("./x/../a.qcow2").disk == path


def test_a_tilde_is_the_home(make_disk: MakeDisk, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_disk("a.qcow2")
    monkeypatch.setenv("HOME", str(path.parent))
    assert ask("~/a.qcow2").disk == path


def test_the_image_stays_as_it_was(make_disk: MakeDisk, ask: Ask) -> None:
    path = make_disk("a.qcow2")
    before = path.stat(), path.read_bytes()
    ask("a.qcow2")
    after = path.stat(), path.read_bytes()
    assert before[0].st_mtime_ns == after[0].st_mtime_ns
    assert before[1] == after[1]


def test_an_image_without_kernel_boots_from_its_disk(make_disk: MakeDisk, ask: Ask) -> None:
    make_disk("a.qcow2")
    image = ask("a.qcow2")
    assert (image.kernel, image.initrd, image.cmdline, image.built) == (None, None, None, None)


def test_the_key_is_the_same_for_an_unchanged_image(make_disk: MakeDisk, ask: Ask) -> None:
    make_disk("a.qcow2")
    assert ask("a.qcow2").key == ask("a.qcow2").key


def test_the_key_changes_with_the_image(make_disk: MakeDisk, ask: Ask) -> None:
    path = make_disk("a.qcow2")
    before = ask("a.qcow2").key
    subprocess.run(
        ["qemu-io", "-f", "qcow2", "-c", "write -P 9 64k 64k", path], check=True, capture_output=True
    )
    assert ask("a.qcow2").key != before


def test_the_key_changes_with_the_backing_file(make_disk: MakeDisk, ask: Ask) -> None:
    base = make_disk("base.qcow2")
    make_disk("top.qcow2", backing="base.qcow2")
    before = ask("top.qcow2").key
    os.utime(base, ns=(1, 1))
    assert ask("top.qcow2").key != before


def test_the_key_changes_with_kernel_initrd_and_cmdline(tmp_path: Path, make_disk: MakeDisk, ask: Ask) -> None:
    make_disk("a.qcow2")
    for name in ("kernel", "initrd"):
        (tmp_path / name).write_bytes(b"x")
    keys = {
        ask("a.qcow2").key,
        ask("a.qcow2", kernel="kernel").key,
        ask("a.qcow2", kernel="kernel", initrd="initrd").key,
        ask("a.qcow2", kernel="kernel", initrd="initrd", cmdline="quiet").key,
    }
    (tmp_path / "kernel").write_bytes(b"yy")
    assert len(keys | {ask("a.qcow2", kernel="kernel").key}) == 5


def test_an_image_that_another_qemu_writes_to_can_be_asked_for(make_disk: MakeDisk, ask: Ask) -> None:
    path = make_disk("a.qcow2")
    with subprocess.Popen(
        ["qemu-io", "-f", "qcow2", path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdin
        assert writer.stdout
        writer.stdin.write("length\n")  # once it answers, it holds its lock
        writer.stdin.flush()
        writer.stdout.readline()
        assert ask("a.qcow2").disk == path
        writer.stdin.close()


def test_a_missing_image_says_which_part_of_the_path_is_missing(tmp_path: Path, ask: Ask) -> None:
    with pytest.raises(ImageError, match=r"there is no image .*none/a\.qcow2") as caught:
        ask("none/a.qcow2")
    assert f"{tmp_path / 'none'} does not exist" in caught.value.hint


def test_a_directory_is_refused(tmp_path: Path, ask: Ask) -> None:
    (tmp_path / "d").mkdir()
    with pytest.raises(ImageError, match="is a directory"):
        ask("d")


def test_an_empty_file_is_refused(tmp_path: Path, ask: Ask) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(ImageError, match="is empty"):
        ask("a")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_image_that_cannot_be_read_is_refused(make_disk: MakeDisk, ask: Ask) -> None:
    make_disk("a.qcow2").chmod(0)
    with pytest.raises(ImageError, match="cannot be read: Permission denied"):
        ask("a.qcow2")


def test_another_format_is_refused_with_the_command_that_converts_it(make_disk: MakeDisk, ask: Ask) -> None:
    make_disk("a.vmdk", "vmdk")
    with pytest.raises(ImageError, match="format vmdk; qcow2 and raw can be used") as caught:
        ask("a.vmdk")
    assert "qemu-img convert -O qcow2" in caught.value.hint


@pytest.mark.parametrize("keep", [300, 200_000, 3_000_000])
def test_a_qcow2_that_was_cut_off_is_refused(make_disk: MakeDisk, ask: Ask, keep: int) -> None:
    path = make_disk("a.qcow2")
    os.truncate(path, keep)
    with pytest.raises(ImageError, match=r"damaged|cut off"):
        ask("a.qcow2")


def test_a_qcow2_with_broken_tables_is_refused(make_disk: MakeDisk, ask: Ask) -> None:
    path = make_disk("a.qcow2")
    with path.open("r+b") as file:
        file.seek(40)  # the offset of the L1 table (QEMU, docs/interop/qcow2.txt)
        table = int.from_bytes(file.read(8), "big")
        file.seek(table)
        file.write(b"\x80\x00\x00\x7f\xff\xff\x00\x00")
    with pytest.raises(ImageError, match=r"damaged|cut off"):
        ask("a.qcow2")


def test_a_missing_backing_file_is_named(tmp_path: Path, make_disk: MakeDisk, ask: Ask) -> None:
    make_disk("base.qcow2")
    make_disk("top.qcow2", backing="base.qcow2")
    (tmp_path / "base.qcow2").unlink()
    with pytest.raises(ImageError, match=r"base\.qcow2"):
        ask("top.qcow2")


def test_a_packed_image_is_refused_with_the_command_that_unpacks_it(make_disk: MakeDisk, ask: Ask) -> None:
    subprocess.run(["gzip", "-k", make_disk("a.qcow2")], check=True)
    with pytest.raises(ImageError, match="packed with gzip") as caught:
        ask("a.qcow2.gz")
    assert "gunzip" in caught.value.hint


@pytest.mark.parametrize("image", ["gentoo:23.0", "debian", "ftp://example.org/a.qcow2"])
def test_what_is_no_kind_of_image_says_which_kinds_there_are(ask: Ask, image: str) -> None:
    with pytest.raises(ImageError, match="is no address or suite either") as caught:
        ask(image)
    assert "debian:SUITE" in caught.value.hint


def test_a_missing_qemu_img_says_what_to_install(
    tmp_path: Path, make_disk: MakeDisk, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_disk("a.qcow2")
    monkeypatch.setattr("pytest_vmsnap.image.commands.SYSTEM_DIRECTORIES", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("qemu-img") is None
    with pytest.raises(ImageError, match="qemu-img is missing") as caught:
        ask("a.qcow2")
    assert "qemu-utils" in caught.value.hint


def test_a_kernel_without_cmdline_gets_one_that_shows_its_console(
    tmp_path: Path, make_disk: MakeDisk, ask: Ask
) -> None:
    make_disk("a.qcow2")
    (tmp_path / "vmlinuz").write_bytes(b"kernel")
    image = ask("a.qcow2", kernel="vmlinuz")
    assert image.kernel == tmp_path / "vmlinuz"
    assert image.cmdline == "root=/dev/vda rw console=ttyS0 no_timer_check"


def test_a_cmdline_is_taken_as_it_is_even_if_empty(tmp_path: Path, make_disk: MakeDisk, ask: Ask) -> None:
    make_disk("a.qcow2")
    (tmp_path / "vmlinuz").write_bytes(b"kernel")
    assert ask("a.qcow2", kernel="vmlinuz", cmdline="").cmdline == ""


@pytest.mark.parametrize("name", ["initrd", "cmdline"])
def test_what_belongs_to_a_kernel_needs_one(make_disk: MakeDisk, ask: Ask, name: str) -> None:
    make_disk("a.qcow2")
    with pytest.raises(SpecError, match=f"{name}='x' needs a kernel"):
        ask("a.qcow2", **{name: "x"})


@pytest.mark.parametrize("name", ["kernel", "initrd"])
def test_a_missing_kernel_or_initrd_is_named(tmp_path: Path, make_disk: MakeDisk, ask: Ask, name: str) -> None:
    make_disk("a.qcow2")
    (tmp_path / "there").write_bytes(b"x")
    files = {"kernel": "there", "initrd": "there"} | {name: "gone"}
    with pytest.raises(ImageError, match=f"there is no {name} "):
        ask("a.qcow2", **files)


def test_a_machine_without_image_boots_its_kernel(tmp_path: Path, ask: Ask) -> None:
    (tmp_path / "vmlinuz").write_bytes(b"kernel")
    image = ask(None, kernel="vmlinuz", cmdline="console=ttyS0")
    assert image.disk is None
    assert image.kernel == tmp_path / "vmlinuz"


def test_a_machine_without_image_needs_a_kernel(ask: Ask) -> None:
    with pytest.raises(SpecError, match="needs a kernel"):
        ask(None)


@pytest.mark.parametrize(
    ("image", "parts", "words"),
    [
        ("a.qcow2", {"sha256": "0" * 64}, "image_sha256 is only for an image from an address"),
        ("a.qcow2", {"packages": ("vim",)}, "packages are only for an image debian:SUITE"),
        ("debian:trixie", {"initrd": "initrd"}, "needs a kernel"),
        ("debian:trixie", {"modules": "modules"}, "needs a kernel"),
        ("debian:trixie", {"firmware": "uefi-secure"}, "Secure Boot starts only what is signed"),
        ("a.qcow2", {"firmware": "uefi-secure", "kernel": "vmlinuz"}, "Secure Boot starts only what is signed"),
    ],
)
def test_parts_that_mean_nothing_with_this_kind_of_image_are_refused(
    ask: Ask, image: str, parts: dict[str, Any], words: str
) -> None:
    with pytest.raises(SpecError, match=words):
        ask(image, **parts)
