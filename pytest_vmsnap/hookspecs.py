"""The hooks of the plugin; implement them in a ``conftest.py`` or in a plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    from pytest_vmsnap.machine import Cluster, Machine
    from pytest_vmsnap.model import ClusterSpec, MachineSpec


@pytest.hookspec
def pytest_vmsnap_prepare(vm: Machine, spec: MachineSpec) -> None:
    """Prepare the base state: install, configure and start what every test needs.

    Called once for each base state that is built, after the machine has booted and before it is saved. `vm` is
    the machine, `spec` its `MachineSpec`. All implementations are called, the outermost conftest's first. If
    one raises, the tests that need the state fail with `StateFailed`.
    """


@pytest.hookspec
def pytest_vmsnap_prepare_cluster(vm_cluster: Cluster, spec: ClusterSpec) -> None:
    """Prepare each cluster before its first test: what all tests of several machines need.

    Called once for each set of machines that is put on a private network, before it is saved; states of
    clusters, declared with ``@state(machines=...)``, start from there. `vm_cluster` is the `Cluster`, `spec`
    its `ClusterSpec`, with `members` in their order: `name`, `spec` and `state` of each. Before that,
    ``pytest_vmsnap_prepare`` has prepared the base state of each machine. All implementations are called, the
    outermost conftest's first. If one raises, the tests that need the cluster fail with `StateFailed`.
    """


@pytest.hookspec
def pytest_vmsnap_domain_xml(domain: Element, spec: MachineSpec) -> None:
    """Change a libvirt domain before it starts, by changing its element tree in place.

    Called for templates and for clones, and when the key of the base state is computed. `domain` is the
    ``<domain>`` element (libvirt's domain XML format), `spec` the machine's `MachineSpec`. Saving fails if you
    add a device whose state QEMU cannot save. All implementations are called, the outermost conftest's first.
    """
