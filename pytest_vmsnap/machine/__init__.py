"""The machine that a test gets: its commands, waits, files and power."""

from pytest_vmsnap.machine.backend import Backend
from pytest_vmsnap.machine.cluster import Cluster
from pytest_vmsnap.machine.cluster_network import ClusterNetwork, NetworkFault
from pytest_vmsnap.machine.deadlines import Deadlines
from pytest_vmsnap.machine.history import CommandRecord, History
from pytest_vmsnap.machine.interactive import AtTerminal
from pytest_vmsnap.machine.machine import Machine
from pytest_vmsnap.machine.screen import screenshot

__all__ = [
    "Machine",
    "Cluster",
    "ClusterNetwork",
    "NetworkFault",
    "Backend",
    "Deadlines",
    "AtTerminal",
    "History",
    "CommandRecord",
    "screenshot",
]
