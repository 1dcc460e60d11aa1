"""The host: its libvirt, its accelerator, its processes, and the description of a domain."""

from pytest_vmsnap.host.abilities import IGNORE_SHARED, Abilities, abilities_of
from pytest_vmsnap.host.domain_xml import MAIN_MEMORY, Blueprint, Memory, describe, netdev_of
from pytest_vmsnap.host.files import replacing, write_whole
from pytest_vmsnap.host.forwards import Forward, Protocol, add_forward, forwards, remove_forward
from pytest_vmsnap.host.host import MORE_ROOM, Facts, Host, choose_uri, default_store, open_host, space_for
from pytest_vmsnap.host.libvirt import Connection, Domain, keep_taints_quiet
from pytest_vmsnap.host.processes import is_stopped
from pytest_vmsnap.host.run import Run, sweep
from pytest_vmsnap.host.uri import UriChoice

__all__ = [
    "open_host",
    "choose_uri",
    "default_store",
    "Host",
    "Facts",
    "UriChoice",
    "space_for",
    "MORE_ROOM",
    "Connection",
    "Domain",
    "Abilities",
    "abilities_of",
    "IGNORE_SHARED",
    "Blueprint",
    "Memory",
    "MAIN_MEMORY",
    "describe",
    "netdev_of",
    "Forward",
    "Protocol",
    "add_forward",
    "remove_forward",
    "forwards",
    "Run",
    "sweep",
    "is_stopped",
    "replacing",
    "write_whole",
    "keep_taints_quiet",
]
