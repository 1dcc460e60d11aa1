"""The checks of the host for `vmsnap doctor`. They use the same code as a run."""

from pytest_vmsnap.host.doctor.checks import examine
from pytest_vmsnap.host.doctor.memory import memory

__all__ = ["examine", "memory"]
