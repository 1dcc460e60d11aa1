"""What a test holds: commands, waits, files, power."""

from pytest_vmsnap.machine.body import Body, Deadlines
from pytest_vmsnap.machine.interactive import AtTerminal
from pytest_vmsnap.machine.machine import Machine

__all__ = ["Machine", "Body", "Deadlines", "AtTerminal"]
