"""The machine that every test starts from, and a client for the service in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from notes import Notes

if TYPE_CHECKING:
    from pytest_vmsnap import Machine

SERVICE = Path(__file__).parent.parent / "notesd"


def pytest_vmsnap_prepare(vm: Machine) -> None:
    """Install the service. This runs once, and every test starts from the result."""
    vm.upload(SERVICE, "/root/notesd")
    vm.succeed("/root/notesd/install.sh")
    vm.wait_for_open_port(8080)


@pytest.fixture
def notes(vm: Machine) -> Notes:
    """A client for the service in the test's machine."""
    return Notes(vm)
