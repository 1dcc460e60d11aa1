"""The plugin's hooks; implement them in a ``conftest.py`` or in a plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    from pytest_vmsnap.machine import Machine
    from pytest_vmsnap.model import MachineSpec


@pytest.hookspec
def pytest_vmsnap_prepare(vm: Machine, spec: MachineSpec) -> None:
    """Prepare the base state: install, configure, start what every test needs.

    Runs once, on the booted machine, before it is saved. All implementations run, the outermost conftest's
    first. `vm` is the machine, `spec` its `MachineSpec`.
    """


@pytest.hookspec
def pytest_vmsnap_domain_xml(domain: Element, spec: MachineSpec) -> None:
    """Change the libvirt domain's element tree in place before it is used, for template and clones alike.

    `domain` is the ``<domain>`` element (libvirt's domain XML format); devices whose state QEMU cannot save
    make the save fail. All implementations run, the outermost conftest's first.
    """
