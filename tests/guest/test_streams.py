"""No guest and no file decides how much memory the host needs, and no file is there in part."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap import ChannelError, CommandTimeout, OutputTooLong
from pytest_vmsnap.evidence import collectors

from .memory import peak

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_vmsnap import Machine

MOST_MIB = 64  # that a transfer may need
LIMIT = 64 << 20  # vmsnap_output_limit's default
GIB = 1 << 30

contract = pytest.mark.contract


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contract
def test_a_command_that_prints_without_end_is_ended_with_its_first_and_last_lines(vm_module: Machine) -> None:
    with peak() as found, pytest.raises(OutputTooLong) as caught:
        vm_module.run("echo first; exec yes line", timeout=600)
    assert found.mib < 1.5 * MOST_MIB
    text = str(caught.value)
    assert "more than the 64 MiB of stdout" in text
    assert "first\n  line\n" in text
    assert "stdout=path" in text
    assert "vmsnap_output_limit" in text
    assert vm_module.succeed("pidof yes || echo none") == "none\n"


def test_the_room_of_a_long_output_is_there_for_the_next_command(vm: Machine) -> None:
    """The agent keeps an output in the guest's memory, and removes it by a process, which may be slow."""
    vm.succeed("mv /usr/bin/rm /usr/bin/slow-rm")
    vm.write_text("/usr/bin/rm", '#!/bin/sh\nsleep 3\nexec slow-rm "$@"\n', mode=0o755)
    free = int(vm.succeed("df --output=avail --block-size=1M /dev/shm | tail -1"))
    vm.succeed(f"fallocate --length {free - 40}M /dev/shm/other")
    for _ in range(2):
        assert len(vm.run("head -c 30M /dev/zero").stdout) == 30 << 20


def test_what_testinfra_reads_without_end_is_ended(vm_module: Machine) -> None:
    with pytest.raises(OutputTooLong):
        vm_module.testinfra.check_output("yes")
    assert vm_module.succeed("echo on") == "on\n"


@contract
def test_an_output_goes_to_a_file_of_the_host_as_it_comes(vm_module: Machine, tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.write_text("before")
    with peak() as found:
        result = vm_module.run("head -c 80000000 /dev/zero; echo err >&2", stdout=target, timeout=600)
    assert (result.stdout, result.stderr) == (b"", b"err\n")
    assert target.stat().st_size == 80_000_000
    assert found.mib < MOST_MIB
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@contract
def test_the_file_of_a_command_that_is_killed_stays_what_it_was(vm_module: Machine, tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.write_text("before")
    with pytest.raises(CommandTimeout) as caught:
        vm_module.run("echo part; sleep 1000", stdout=target, timeout=2)
    assert caught.value.result.stdout == b"part\n"
    assert target.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@contract
def test_a_file_that_is_longer_than_what_is_kept_is_no_bytes_but_a_download(vm_module: Machine) -> None:
    with peak() as found, pytest.raises(ChannelError, match="larger than the limit of 64 MiB") as caught:
        vm_module.read_bytes("/dev/zero")
    assert "vm.download" in str(caught.value)
    assert found.mib < 1.5 * MOST_MIB


@contract
def test_holes_stay_holes_both_ways_whatever_the_size(vm_module: Machine, tmp_path: Path) -> None:
    # another tar knows no holes on the way down
    size = 20 * GIB if "GNU" in vm_module.run("tar --version 2>&1").text else GIB
    sparse = tmp_path / "tree" / "sparse"
    sparse.parent.mkdir()
    with sparse.open("wb") as file:
        file.write(b"begin")
        file.seek(size // 20)
        file.write(b"middle")
        file.truncate(size)
    (tmp_path / "tree" / "small").write_text("small\n")
    with peak() as found:
        vm_module.upload(tmp_path / "tree", "/var/tmp/tree")
        vm_module.download("/var/tmp/tree", tmp_path / "back")
    assert found.mib < MOST_MIB
    there, blocks = map(int, vm_module.succeed("stat -c '%s %b' /var/tmp/tree/sparse").split())
    assert (there, blocks * 512 < 1 << 20) == (size, True)
    back = (tmp_path / "back" / "sparse").stat()
    assert (back.st_size, back.st_blocks * 512 < 1 << 20) == (size, True)
    with (tmp_path / "back" / "sparse").open("rb") as file:
        assert file.read(6) == b"begin\0"
        file.seek(size // 20)
        assert file.read(7) == b"middle\0"
    assert vm_module.succeed("rm -r /var/tmp/tree; ls -A /var/tmp | grep vmsnap; true") == ""


def test_a_large_file_goes_up_and_comes_back_exactly_in_little_memory(
    vm_module: Machine, tmp_path: Path
) -> None:
    large = tmp_path / "large"
    with large.open("wb") as file:
        for _ in range(24):
            file.write(os.urandom(8 << 20))
    with peak() as found:
        vm_module.upload(large, "/var/tmp/large")
        assert digest(large) == vm_module.succeed("sha256sum /var/tmp/large", timeout=600).split()[0]
        vm_module.download("/var/tmp/large", tmp_path / "back")
    assert digest(tmp_path / "back") == digest(large)
    assert found.mib < MOST_MIB
    vm_module.succeed("rm /var/tmp/large")


@pytest.mark.thorough
def test_three_gigabytes_of_data_go_up_and_come_back_in_little_memory(vm: Machine, tmp_path: Path) -> None:
    large = tmp_path / "large"
    with large.open("wb") as file:
        for _ in range(3 * 128):
            file.write(os.urandom(8 << 20))
    with peak() as found:
        vm.upload(large, "/var/tmp/large")
        vm.download("/var/tmp/large", tmp_path / "back")
    assert digest(tmp_path / "back") == digest(large)
    assert found.mib < MOST_MIB


def test_what_has_no_room_in_the_guest_is_said_before_it_is_sent(vm_module: Machine, tmp_path: Path) -> None:
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(3 * GIB)
        for start in range(0, 3 * GIB, 1 << 16):  # some data in each part, so that it is no hole
            os.pwrite(file.fileno(), b"x", start)
    vm_module.succeed("mkdir /mnt/small && mount -t tmpfs -o size=20m none /mnt/small")
    with pytest.raises(ChannelError, match=r"it needs \d+ MiB, and only 20 MiB are free there"):
        vm_module.upload(large, "/mnt/small/large")
    assert vm_module.succeed("ls -A /mnt/small; umount /mnt/small; rmdir /mnt/small") == ""


@contract
def test_an_upload_that_fails_leaves_what_was_there(vm_module: Machine, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    for number in range(40):
        (tmp_path / "tree" / str(number)).write_bytes(os.urandom(100_000))
    vm_module.succeed(
        "mkdir /mnt/small && mount -t tmpfs -o size=2m none /mnt/small",
        "mkdir /mnt/small/tree; echo old >/mnt/small/tree/0",
    )
    with pytest.raises(ChannelError, match="No space left"):
        vm_module.upload(tmp_path / "tree", "/mnt/small")
    assert (
        vm_module.succeed("cat /mnt/small/tree/0; ls -A /mnt/small; umount /mnt/small; rmdir /mnt/small")
        == "old\ntree\n"
    )


@contract
def test_a_write_that_fails_leaves_what_was_there(vm_module: Machine) -> None:
    vm_module.succeed(
        "mkdir /mnt/small && mount -t tmpfs -o size=1m none /mnt/small; echo old >/mnt/small/file"
    )
    for name in ("file", "new"):
        with pytest.raises(ChannelError, match=r"No space left|I/O error"):  # GNU's words, busybox's
            vm_module.write_bytes(f"/mnt/small/{name}", bytes(2_000_000))
    assert (
        vm_module.succeed("cat /mnt/small/file; ls -A /mnt/small; umount /mnt/small; rmdir /mnt/small")
        == "old\nfile\n"
    )


@contract
def test_a_download_that_fails_leaves_what_was_there(vm_module: Machine, tmp_path: Path) -> None:
    (tmp_path / "tree").write_text("old")
    with pytest.raises(ChannelError, match=r"[Cc]annot|nowhere: No such file"):  # GNU's words, busybox's
        vm_module.download("/nowhere", tmp_path / "tree")
    vm_module.succeed("mkdir -p /root/odd && mkfifo /root/odd/pipe; mknod /root/odd/zero c 1 5")
    with pytest.raises(ChannelError, match="is a device node"):
        vm_module.download("/root/odd", tmp_path / "odd")
    assert [path.name for path in tmp_path.iterdir()] == ["tree"]
    assert (tmp_path / "tree").read_text() == "old"


def test_a_hostile_archive_writes_nowhere_else(vm_module: Machine, tmp_path: Path) -> None:
    """The guest's tar is whatever the guest says."""
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    (tmp_path / "made").mkdir()
    import io
    import tarfile

    def archive(*members: tuple[str, bytes, str]) -> bytes:
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w") as file:
            for name, kind, link in members:
                member = tarfile.TarInfo(name)
                member.type, member.linkname, member.mode = kind, link, 0o6755
                member.size = 3 if kind == tarfile.REGTYPE else 0
                file.addfile(member, io.BytesIO(b"bad"))
        return made.getvalue()

    hostile = {
        "over a link": archive(("x", tarfile.SYMTYPE, str(victim)), ("x", tarfile.REGTYPE, "")),
        "behind a link": archive(
            ("x", tarfile.DIRTYPE, ""),
            ("x/l", tarfile.SYMTYPE, str(tmp_path)),
            ("x/l/victim", tarfile.REGTYPE, ""),
        ),
        "above": archive(("x/../victim", tarfile.REGTYPE, "")),
        "another": archive(("victim", tarfile.REGTYPE, "")),
        "a link to outside": archive(("x", tarfile.LNKTYPE, str(victim))),
    }
    vm_module.succeed("cp -a $(command -v tar) /root/tar.real")
    place = vm_module.succeed("command -v tar").strip()
    try:
        for how, data in hostile.items():
            vm_module.write_bytes("/root/hostile.tar", data)
            vm_module.write_text(place, "#!/bin/sh\ncat /root/hostile.tar\n")
            target = tmp_path / "made" / how
            try:
                vm_module.download("/root/x", target)
            except ChannelError:
                assert not target.exists()
            else:
                assert how == "over a link"
                assert target.stat().st_mode & 0o7777 == 0o755
            assert victim.read_text() == "untouched"
    finally:
        vm_module.succeed(f"cp -a /root/tar.real {place}")


@contract
def test_eight_threads_have_their_turns_and_their_own_time_outs(vm_module: Machine) -> None:
    results: dict[int, object] = {}

    def work(number: int) -> None:
        try:
            results[number] = vm_module.run(f"sleep 2; echo {number}", timeout=0.2 if number == 5 else 60).text
        except CommandTimeout as error:
            results[number] = error

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - began > 3
    timed_out = results.pop(5)
    assert isinstance(timed_out, CommandTimeout)
    assert results == {number: f"{number}\n" for number in range(8) if number != 5}


@contract
def test_a_command_with_a_terminal_has_one_and_its_own_status(vm_module: Machine) -> None:
    result = vm_module.run("test -t 0 && test -t 1 && echo yes; echo err >&2; exit 3", tty=True)
    assert (result.stdout.replace(b"\r\n", b"\n"), result.stderr, result.returncode) == (b"yes\nerr\n", b"", 3)
    assert vm_module.run("test -t 0").returncode == 1


@contract
def test_a_program_that_asks_at_the_terminal_is_answered_by_the_input(vm_module: Machine) -> None:
    asks = "stty -echo; printf 'name? ' >/dev/tty; read -r name </dev/tty; echo \"hello $name\""
    result = vm_module.run(asks, input="Ada\n", tty=True, timeout=60)
    assert "name? " in result.text
    assert "hello Ada" in result.text


@pytest.mark.parametrize(
    ("what", "call"),
    [
        ("the command", lambda vm: vm.run("echo a\0b")),
        ("the command", lambda vm: vm.run(["echo", "a\0b"])),
        ("the command", lambda vm: vm.popen("echo a\0b")),
        (r"env\['NAME'\]", lambda vm: vm.run("true", env={"NAME": "a\0b"})),
        ("cwd", lambda vm: vm.run("true", cwd="/\0")),
        ("user", lambda vm: vm.run("true", user="ro\0ot")),
        ("/etc/", lambda vm: vm.read_bytes("/etc/\0")),
        ("/etc/", lambda vm: vm.upload("/etc/hostname", "/etc/\0")),
    ],
)
def test_a_nul_is_refused(vm_module: Machine, what: str, call: object) -> None:
    with pytest.raises(ValueError, match=f"{what}.* NUL"):
        call(vm_module)  # type: ignore[operator]


def test_a_name_that_no_variable_can_have_is_refused(vm_module: Machine) -> None:
    with pytest.raises(ValueError, match="is not a valid variable name"):
        vm_module.run("true", env={"A; reboot": "x"})


@pytest.mark.thorough
def test_a_console_of_any_length_is_searched_and_kept_in_little_memory(vm: Machine) -> None:
    vm.succeed("echo early-word >/dev/ttyS0; head -c 1500000 /dev/zero | tr '\\0' x >/dev/ttyS0", timeout=600)
    vm.succeed("echo late-word >/dev/ttyS0")
    with peak() as found:
        assert vm.wait_for_console_text("early-word")
        assert vm.wait_for_console_text("late-.ord")
    assert found.mib < MOST_MIB


@pytest.mark.thorough
def test_the_end_of_a_journal_of_any_size_is_evidence(vm: Machine) -> None:
    prints = "#!/bin/sh\nhead -c 500000000 /dev/zero | tr '\\0' x\necho\necho the end\n"
    vm.write_text("/usr/bin/journalctl", prints, mode=0o755)
    with peak() as found:
        journal = collectors.journal(vm._history, 600)
    assert journal.endswith(b"x\nthe end\n")
    assert len(journal) == collectors.JOURNAL_BYTES
    assert found.mib < MOST_MIB


@pytest.mark.thorough
def test_holes_stay_holes_where_the_guests_tar_knows_none(
    project: pytest.Pytester, light: tuple[str, ...], runner: list[str]
) -> None:
    project.makepyfile(
        """
        import os

        def test_it(vm, tmp_path):
            tree = tmp_path / "tree"
            tree.mkdir()
            with (tree / "sparse").open("wb") as file:
                file.write(b"begin")
                file.seek(100 << 20)
                file.write(b"middle")
                file.truncate(300 << 20)
            os.utime(tree / "sparse", (10**9, 10**9))
            (tree / "small").write_text("small")
            assert vm.run("tar --version 2>&1 | grep GNU").returncode
            vm.succeed("mkdir /root/there")
            for target, place in (("/root/new", "/root/new"), ("/root/there", "/root/there/tree")):
                vm.upload(tree, target)
                size, blocks, time = vm.succeed(f"stat -c '%s %b %Y' {place}/sparse").split()
                assert (int(size), int(blocks) < 2048, int(time)) == (300 << 20, True, 10**9)
                assert vm.succeed(f"head -c 5 {place}/sparse; cat {place}/small") == "beginsmall"
                middle = f"dd if={place}/sparse bs=1048576 skip=100 count=1 2>/dev/null | head -c 6"
                assert vm.succeed(middle) == "middle"
            vm.download("/root/new", tmp_path / "back")
            assert (tmp_path / "back/sparse").stat().st_blocks < 2048
            assert (tmp_path / "back/sparse").stat().st_size == 300 << 20
        """
    )
    result = project.run(*runner, "-p", "no:cacheprovider", *light)
    result.assert_outcomes(passed=1)
