"""The host: its libvirt, its accelerator, its processes, and the description of a domain."""

from pytest_vmsnap.host.atomic_files import replacing, write_whole
from pytest_vmsnap.host.connect import open_host
from pytest_vmsnap.host.domain_xml import MAIN_MEMORY, DomainConfig, Flash, LanPort, Memory, describe, netdev_of
from pytest_vmsnap.host.facts import Facts
from pytest_vmsnap.host.file_copy import NO_ROOM, copy_file
from pytest_vmsnap.host.firmware import INSTALL_UEFI, UefiFirmware, uefi_firmware
from pytest_vmsnap.host.forwards import Forward, Protocol, add_forward, forwards, remove_forward
from pytest_vmsnap.host.host import MORE_ROOM, Host, space_for
from pytest_vmsnap.host.libvirt import Connection, Domain, silence_taint_warnings
from pytest_vmsnap.host.processes import is_stopped
from pytest_vmsnap.host.qemu_capabilities import IGNORE_SHARED, Capabilities, query_capabilities
from pytest_vmsnap.host.run_directory import Run, sweep
from pytest_vmsnap.host.tpm import INSTALL_TPM, Tpm
from pytest_vmsnap.host.uri import UriChoice, choose_uri, default_store

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
    "Capabilities",
    "query_capabilities",
    "IGNORE_SHARED",
    "DomainConfig",
    "Flash",
    "UefiFirmware",
    "uefi_firmware",
    "INSTALL_UEFI",
    "Tpm",
    "INSTALL_TPM",
    "Memory",
    "MAIN_MEMORY",
    "LanPort",
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
    "copy_file",
    "NO_ROOM",
    "silence_taint_warnings",
]
