"""A pytest-testinfra host whose commands go through the machine's channel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_vmsnap.errors import HostError
from pytest_vmsnap.machine.commands import Commands

if TYPE_CHECKING:
    from testinfra.host import Host


class Testinfra(Commands):
    """A machine's pytest-testinfra host."""

    _testinfra: Host | None = None

    @property
    def testinfra(self) -> Host:
        """A pytest-testinfra host: ``vm.testinfra.service("ssh").is_running``.

        Raises `HostError` if the extra ``testinfra`` is not installed.
        """
        __tracebackhide__ = True
        self._expect_usable()
        if self._testinfra is None:
            self._testinfra = _host(self)
        return self._testinfra


def _host(machine: Commands) -> Host:
    try:
        from testinfra.backend.base import BaseBackend  # optional
        from testinfra.host import Host
    except ImportError as error:
        raise HostError(
            "vm.testinfra needs pytest-testinfra", hint="pip install 'pytest-vmsnap[testinfra]'"
        ) from error

    class Backend(BaseBackend):  # type: ignore[misc] # it ships no types
        """Runs testinfra's commands in the guest, as root."""

        NAME = "vmsnap"

        def run(self, command: str, *args: str, **_: Any) -> Any:
            text = self.get_command(command, *args)
            done = machine.run(text)
            return self.result(done.returncode, self.encode(text), done.stdout, done.stderr)

    backend = Backend(machine.name)
    host = Host(backend)
    backend.set_host(host)
    return host
