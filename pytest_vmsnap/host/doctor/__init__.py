"""The checks of the host that `vmsnap doctor` makes, by the code that a run asks the host with."""

from pytest_vmsnap.host.doctor.examination import examine
from pytest_vmsnap.host.doctor.memory import memory

__all__ = ["examine", "memory"]
