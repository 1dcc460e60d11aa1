"""Files to and from a real guest."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap import ChannelError

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_vmsnap import Machine

pytestmark = pytest.mark.contract


def test_text_and_bytes_come_back_as_written(vm_module: Machine) -> None:
    vm_module.write_text("/root/text", "größe\n")
    vm_module.write_bytes("/root/bytes", bytes(range(256)))
    assert vm_module.read_text("/root/text") == "größe\n"
    assert vm_module.read_bytes("/root/bytes") == bytes(range(256))


def test_a_mode_is_set_where_it_is_given(vm_module: Machine) -> None:
    vm_module.write_text("/root/script", "#!/bin/sh\necho ran\n", mode=0o750)
    assert vm_module.succeed("/root/script; stat -c %a /root/script") == "ran\n750\n"


def test_an_empty_file_and_a_file_of_proc_can_be_read(vm_module: Machine) -> None:
    vm_module.write_bytes("/root/empty", b"")
    assert vm_module.read_bytes("/root/empty") == b""
    assert vm_module.read_text("/proc/sys/kernel/ostype") == "Linux\n"


def test_a_file_that_is_not_there_is_named(vm_module: Machine) -> None:
    with pytest.raises(ChannelError, match=r"/root/nowhere.*No such file or directory"):
        vm_module.read_bytes("/root/nowhere")


def test_a_file_that_cannot_be_written_is_named(vm_module: Machine) -> None:
    with pytest.raises(ChannelError, match="/proc/nowhere"):
        vm_module.write_bytes("/proc/nowhere", b"x")


def test_a_relative_path_in_the_guest_is_refused(vm_module: Machine) -> None:
    with pytest.raises(ValueError, match="absolute"):
        vm_module.read_bytes("etc/hostname")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "sub" / "empty").mkdir(parents=True)
    (root / "run.sh").write_text("#!/bin/sh\necho uploaded\n")
    (root / "run.sh").chmod(0o755)
    (root / "secret").write_bytes(bytes(range(256)))
    (root / "secret").chmod(0o600)
    (root / "sub" / "to-run").symlink_to("../run.sh")
    (root / "sub" / "dangling").symlink_to("/nowhere/at/all")
    os.utime(root / "secret", (1_000_000_000, 1_000_000_000))
    return root


def test_a_tree_goes_up_and_comes_back_with_modes_times_and_links(
    vm_module: Machine, tree: Path, tmp_path: Path
) -> None:
    vm_module.upload(tree, "/root/copy")
    assert vm_module.succeed("/root/copy/sub/to-run; stat -c '%a %U %Y' /root/copy/secret") == (
        "uploaded\n600 root 1000000000\n"
    )
    vm_module.download("/root/copy", tmp_path / "back")
    back = tmp_path / "back"
    assert sorted(p.relative_to(back) for p in back.rglob("*")) == sorted(
        p.relative_to(tree) for p in tree.rglob("*")
    )
    assert (back / "secret").read_bytes() == bytes(range(256))
    assert (back / "secret").stat().st_mode & 0o777 == 0o600
    assert (back / "secret").stat().st_mtime == 1_000_000_000
    assert (back / "sub" / "to-run").readlink() == (tree / "sub" / "to-run").readlink()


def test_a_directory_takes_the_copy_into_itself(vm_module: Machine, tree: Path, tmp_path: Path) -> None:
    vm_module.succeed("mkdir -p /root/there")
    vm_module.upload(tree / "run.sh", "/root/there")
    assert vm_module.succeed("/root/there/run.sh") == "uploaded\n"
    (tmp_path / "here").mkdir()
    vm_module.download("/root/there/run.sh", tmp_path / "here")
    assert (tmp_path / "here" / "run.sh").stat().st_mode & 0o777 == 0o755


def test_a_hundred_megabytes_go_up_and_come_back_exact(vm: Machine, tmp_path: Path) -> None:
    # slower elsewhere: the agent has them go as text, and SSH has an emulated processor encrypt
    data = random.Random(7).randbytes(100_000_000 if vm._channel.name == "shell" else 20_000_000)
    (tmp_path / "large").write_bytes(data)
    vm.upload(tmp_path / "large", "/root/large")
    vm.download("/root/large", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data


def test_what_cannot_be_copied_is_said_with_both_names(vm_module: Machine, tree: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        vm_module.upload(tmp_path / "nothing", "/root")
    with pytest.raises(ChannelError, match=r"tree could not be written to /nowhere/deep in the guest"):
        vm_module.upload(tree, "/nowhere/deep")
    with pytest.raises(ChannelError, match=r"/nowhere could not be read in the guest"):
        vm_module.download("/nowhere", tmp_path)
