"""What a display shows is a part of a saved machine: pixel for pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_vmsnap import Machine

# The text console, without its blinking cursor; what is on it is the guest's own
DRAW = """
printf '\\033[?25l\\033[2J\\033[H' >/dev/tty1
for line in 1 2 3 4 5 6 7 8; do printf '\\033[3%dm%s a picture\\n' $((line % 7 + 1)) $line >/dev/tty1; done
"""
SCREEN = pytest.mark.vm(screen=True)


def picture(vm: Machine, path: Path) -> bytes:
    from PIL import Image

    with Image.open(vm.screenshot(path)) as image:
        assert len(image.getcolors(1 << 24) or []) > 3, "it shows nothing"
        return image.convert("RGB").tobytes()


@SCREEN
def test_a_screen_is_what_it_was_after_snapshot_and_revert(vm: Machine, tmp_path: Path) -> None:
    vm.succeed(DRAW)
    before = picture(vm, tmp_path / "before.png")
    vm.snapshot("drawn")
    assert picture(vm, tmp_path / "after.png") == before
    with vm.rollback():
        vm.succeed("printf '\\033[2Jother' >/dev/tty1")
    assert picture(vm, tmp_path / "rolled-back.png") == before
    vm.succeed("printf '\\033[2Jother' >/dev/tty1")
    vm.revert("drawn")
    assert picture(vm, tmp_path / "reverted.png") == before
    vm.snapshot("again")
    vm.revert("again")
    assert picture(vm, tmp_path / "again.png") == before


PROJECT = """
import pytest
from pytest_vmsnap import state

@pytest.fixture(scope="session")
def vm_spec(vm_spec):
    return vm_spec.replace(screen=True)

@state
def drawn(vm):
    vm.succeed({draw!r})
    vm.screenshot("built.png")
"""
TEST = """
import pytest

@pytest.mark.vm_state("drawn")
def test_it_is_kept(vm):
    vm.screenshot("tested.png")
    assert 0
"""
# what the display's memory has at its text window: the guest's own view of it
WINDOW = "dd if=/dev/mem bs=4096 skip=184 count=1 2>/dev/null | md5sum"


@pytest.mark.thorough
def test_a_screen_is_what_it_was_in_a_state_a_kept_machine_and_an_exported_state(
    project: pytest.Pytester,
    light: tuple[str, ...],
    command: Path,
    runner: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    options = " ".join(f"'{option}'" for option in (*light, "-pno:cacheprovider", "-pno:randomly"))
    monkeypatch.setenv("PYTEST_ADDOPTS", options)
    project.makeconftest(PROJECT.format(draw=DRAW))
    project.makepyfile(test_it=TEST)
    project.run(*runner, "--vmsnap-keep=failed", "-q").assert_outcomes(failed=1)
    built, tested = (project.path / name for name in ("built.png", "tested.png"))
    assert built.read_bytes() == tested.read_bytes()
    seen = project.run(command, "open", "test_it_is_kept", "--exec", WINDOW).outlines
    assert seen == project.run(command, "open", "drawn", "--exec", WINDOW).outlines
    exported = tmp_path / "drawn.vmsnap"
    assert project.run(command, "export", "drawn", str(exported)).ret == 0
    monkeypatch.setenv("VMSNAP_STORE", str(tmp_path / "store"))
    assert project.run(command, "import", str(exported)).ret == 0
    assert seen == project.run(command, "open", "drawn", "--exec", WINDOW).outlines
