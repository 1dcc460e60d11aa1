"""What a test holds: commands, waits, files, power."""

from pytest_vmsnap.machine.body import Body, Deadlines
from pytest_vmsnap.machine.interactive import AtTerminal
from pytest_vmsnap.machine.machine import Machine
from pytest_vmsnap.machine.screen import screenshot
from pytest_vmsnap.machine.trail import Deed, Trail

__all__ = ["Machine", "Body", "Deadlines", "AtTerminal", "Trail", "Deed", "screenshot"]
