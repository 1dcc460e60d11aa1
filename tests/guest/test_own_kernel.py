"""A kernel of the user's own in the Debian that the plugin builds, with its modules."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_vmsnap.model import Image, MachineSpec

TESTS = """
def has_its_modules(vm):
    release = vm.succeed("uname -r").strip()
    assert f"/usr/lib/modules/{release} type ext4 (ro" in vm.succeed("mount")
    vm.succeed("modprobe dummy && ip link add own type dummy && ip link show own")
    assert "10.0.2.15" in vm.succeed("ip addr")  # its network needs modules too

def test_modules(vm):
    has_its_modules(vm)
    vm.reboot()
    has_its_modules(vm)

def test_clean(vm):
    vm.fail("ip link show own")
    has_its_modules(vm)
"""

pytestmark = pytest.mark.thorough


@pytest.fixture
def built(vm_spec: MachineSpec, provided: Callable[[MachineSpec], Image]) -> Image:
    return provided(vm_spec)


@pytest.fixture
def modules(built: Image, tmp_path: Path) -> Path:
    """What modules_install wrote for the image's kernel, taken from its disk."""
    assert built.disk
    raw, target = tmp_path / "disk.raw", tmp_path / "modules"
    target.mkdir()
    subprocess.run(["qemu-img", "convert", "-O", "raw", built.disk, raw], check=True)
    subprocess.run(["debugfs", "-R", f"rdump /usr/lib/modules {target}", raw], check=True, capture_output=True)
    raw.unlink()
    return target / "modules"


def test_a_kernel_has_its_own_modules_at_each_boot(
    project: pytest.Pytester, runner: list[str], built: Image, modules: Path
) -> None:
    project.makepyfile(TESTS)
    project.run(*runner, f"--vmsnap-kernel={built.kernel}", f"--vmsnap-modules={modules}").assert_outcomes(
        passed=2
    )


def test_modules_of_another_kernel_are_named_with_both_releases(
    project: pytest.Pytester, runner: list[str], built: Image, modules: Path
) -> None:
    (directory,) = modules.iterdir()
    directory.rename(modules / "6.0.0-other")
    project.makepyfile("def test_it(vm): pass")
    result = project.run(*runner, f"--vmsnap-kernel={built.kernel}", f"--vmsnap-modules={modules}")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        [f"*the kernel that runs is {directory.name}, but vmsnap_modules has the modules of 6.0.0-other*"]
    )
