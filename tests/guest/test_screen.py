"""What a machine shows is saved and goes back with the rest of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .. import plain

if TYPE_CHECKING:
    from pytest_vmsnap.session import VmsnapSession

pytest.importorskip("PIL.Image")

CONFTEST = r"""
from pathlib import Path

from PIL import Image

from pytest_vmsnap import state

HERE = Path(__file__).parent

def picture(vm, name="now"):
    with Image.open(vm.screenshot(HERE / f"{name}.png")) as image:
        return image.size, image.convert("RGB").tobytes()

def show(vm, text):
    # no cursor: it blinks
    vm.succeed(f"printf '\\033[2J\\033[H\\033[?25l{text}' >/dev/tty1")

@state(parent="base")
def drawn(vm):
    show(vm, "\\033[1;31mRED \\033[1;32;44mGREEN ON BLUE")
    vm.wait_until(lambda: len(set(picture(vm, "drawn")[1])) > 2)
    picture(vm, "drawn")
"""
TESTS = r"""
import pytest
from conftest import HERE, picture, show
from PIL import Image

from pytest_vmsnap import HostError

pytestmark = pytest.mark.vm(screen=True)

@pytest.mark.vm_state("drawn")
def test_screen(vm):
    with Image.open(HERE / "drawn.png") as image:
        drawn = image.size, image.convert("RGB").tobytes()
    assert len(set(drawn[1])) > 2
    assert picture(vm) == drawn
    with vm.rollback():
        show(vm, "of no rollback")
        assert picture(vm) != drawn
    assert picture(vm) == drawn
    show(vm, "\\033[1;33mYELLOW")
    yellow = picture(vm)
    assert yellow != drawn
    vm.snapshot("yellow")
    assert picture(vm) == yellow
    show(vm, "of no snapshot")
    vm.revert("yellow")
    assert picture(vm) == yellow
    assert vm.succeed("dd if=/dev/vcs1 bs=6 count=1 2>/dev/null") == "YELLOW"

@pytest.mark.vm_state("drawn")
def test_refused_and_kept(vm):
    # The device decodes no memory: QEMU maps the display's memory nowhere.
    place = vm.succeed("grep -l 0x030000 /sys/bus/pci/devices/*/class").strip().replace("class", "config")
    before = picture(vm)
    command = f"dd of={place} bs=1 seek=4 conv=notrunc 2>/dev/null"
    vm.succeed(f"printf '\\001' | {command}")
    with pytest.raises(HostError, match=r"RAM block 0000:00:\w\w\.0/vga\.vram cannot be saved"):
        vm.snapshot("refused")
    vm.succeed(f"printf '\\003' | {command}")
    vm.snapshot("not refused")
    show(vm, "something else")
    vm.revert("not refused")
    assert picture(vm) == before
    assert 0, "to be kept"
"""
TEXT = "dd if=/dev/vcs1 bs=17 count=1 2>/dev/null"


@pytest.mark.smoke
@pytest.mark.thorough
def test_the_screen_is_what_it_was_wherever_a_machine_is_saved(
    project: pytest.Pytester,
    vmsnap: VmsnapSession,
    light: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert vmsnap._engine
    stores = [vmsnap._engine.host.run.data / f"store-{project.path.name}-{number}" for number in range(2)]
    options = (*light, "-pno:cacheprovider", *plain.OPTIONS)
    monkeypatch.setenv("PYTEST_ADDOPTS", " ".join(f"'{option}'" for option in options))
    monkeypatch.setenv("VMSNAP_STORE", str(stores[0]))
    project.makeini("[pytest]\nvmsnap_standby = 0\n")
    project.makeconftest(CONFTEST)
    project.makepyfile(test_it=TESTS)
    command = Path(sys.executable).with_name("vmsnap")

    result = project.runpytest_subprocess("--vmsnap-keep=failed")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*AssertionError: to be kept"])
    opened = project.run(command, "open", "test_refused_and_kept", "--exec", TEXT)
    assert opened.outlines == ["RED GREEN ON BLUE"]

    assert project.run(command, "export", "drawn", "drawn.vmsnap").ret == 0
    monkeypatch.setenv("VMSNAP_STORE", str(stores[1]))
    assert project.run(command, "import", "drawn.vmsnap").ret == 0
    picture = (project.path / "drawn.png").stat().st_mtime_ns
    project.runpytest_subprocess("-k", "test_screen").assert_outcomes(passed=1)
    assert (project.path / "drawn.png").stat().st_mtime_ns == picture  # it was not built again
