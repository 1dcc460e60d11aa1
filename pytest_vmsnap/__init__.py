"""A clean virtual machine for every test: boot once, save, and revert in milliseconds."""

from pytest_vmsnap import errors
from pytest_vmsnap.errors import *  # noqa: F403 - the tree of errors is public as a whole
from pytest_vmsnap.machine import Machine
from pytest_vmsnap.model import Disk, MachineSpec, Result

__all__ = ["Machine", "MachineSpec", "Disk", "Result", "errors"]
