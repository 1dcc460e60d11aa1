"""Machines of other sizes: their snapshots have all of their memory, processors and disks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_vmsnap import Machine
    from pytest_vmsnap.session import VmsnapSession

# $1: how many MiB, $2: what the first page's number is. Each page of 4 KiB has another number, all over.
FILL = """
mountpoint -q /fill || { mkdir -p /fill; mount -t tmpfs -o size=100% tmpfs /fill; }
perl -e 'print pack("Q", $_) x 512 for $ARGV[1] .. $ARGV[1] + $ARGV[0] * 256 - 1' $1 $2 >/fill/pages
"""
CHECK = """
perl -e '
    open my $file, "<:raw", "/fill/pages" or die;
    for my $number ($ARGV[1] .. $ARGV[1] + $ARGV[0] * 256 - 1) {
        read($file, my $page, 4096) == 4096 or die "the file ends before page $number";
        $page eq pack("Q", $number) x 512 or die "page $number is wrong";
    }
' $1 $2
"""
SECONDS = 900.0


def script(text: str, mib: int, first: int) -> str:
    return f"set -e; set -- {mib} {first}\n{text}"


@pytest.mark.thorough
@pytest.mark.vm(memory=6144)
def test_memory_on_both_sides_of_the_hole_below_4_gib_is_reverted(vm: Machine) -> None:
    """The pattern takes nearly all of the memory, so it is below the hole and above it."""
    pattern = 5632
    vm.succeed(script(FILL, pattern, 1_000_000), timeout=SECONDS)
    vm.snapshot("filled")
    vm.succeed(script(FILL, pattern, 5_000_000), timeout=SECONDS)
    vm.revert("filled")
    vm.succeed(script(CHECK, pattern, 1_000_000), timeout=SECONDS)


@pytest.mark.thorough
def test_a_small_machine_is_reverted(project: pytest.Pytester, light: tuple[str, ...]) -> None:
    """With 64 MiB, Debian's kernel does not start: its own code and data take 39 MiB, before it is unpacked."""
    project.makepyfile(
        """
        FILL = "dd if=/dev/urandom of=/fill/pages bs=1M count={mib} 2>/dev/null; sha256sum /fill/pages"

        def test_it(vm):
            vm.succeed("mkdir -p /fill; mount -t tmpfs -o size=100% tmpfs /fill")
            free = int(vm.succeed("grep MemAvailable /proc/meminfo").split()[1])
            fill = FILL.format(mib=free // 2048)
            first = vm.succeed(fill)
            vm.snapshot("filled")
            assert vm.succeed(fill) != first
            vm.revert("filled")
            assert vm.succeed("sha256sum /fill/pages") == first
            total = int(vm.succeed("grep MemTotal /proc/meminfo").split()[1])
            print(f"{free} of {total} kB were free")
            assert total < 96 << 10
        """
    )
    result = project.runpytest_subprocess(*light, "--vmsnap-memory=96", "-s", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=1)


@pytest.mark.thorough
@pytest.mark.vm(disks=[{"size": 64, "serial": f"disk-{number}"} for number in range(7)])
def test_eight_disks_are_reverted_together(vm: Machine) -> None:
    names = [f"vd{letter}" for letter in "bcdefgh"]
    serials = [vm.succeed(f"cat /sys/block/{name}/serial") for name in names]
    assert serials == [f"disk-{number}" for number in range(7)]
    for name in names:
        vm.succeed(f"echo first {name} >/dev/{name}")
    vm.succeed("echo first root >/root/first; sync")
    vm.snapshot("written")
    for name in names:
        vm.succeed(f"echo second >/dev/{name}")
    vm.succeed("rm /root/first; sync")
    vm.revert("written")
    for name in names:
        assert vm.succeed(f"head -n 1 /dev/{name}") == f"first {name}\n"
    assert vm.read_text("/root/first") == "first root\n"


@pytest.mark.smoke
@pytest.mark.vm(cpus=8)
def test_eight_processors_go_on_with_what_they_did(
    vmsnap: VmsnapSession, request: pytest.FixtureRequest
) -> None:
    if warning := vmsnap.facts.cpu_warning(8):
        pytest.skip(warning)
    vm: Machine = request.getfixturevalue("vm")
    assert vm.succeed("nproc") == "8\n"
    vm.succeed("for number in 1 2 3 4 5 6 7 8; do sh -c 'while :; do :; done' busy >/dev/null 2>&1 & done")
    vm.snapshot("busy")
    vm.succeed("pkill -f 'while :'")
    vm.revert("busy")
    assert vm.succeed("nproc") == "8\n"
    assert vm.succeed("pgrep -fc '^sh -c while :'") == "8\n"
