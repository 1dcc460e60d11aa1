"""The fixtures: what users see, and the seams where a project puts its own."""

from __future__ import annotations

import logging
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from pytest_vmsnap import selection
from pytest_vmsnap.errors import NoHypervisor, SpecError, StateFailed, VmsnapError
from pytest_vmsnap.session import SESSION_KEY, SETTINGS_KEY, VmsnapSession
from pytest_vmsnap.states import BASE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_vmsnap.machine import Machine
    from pytest_vmsnap.model import MachineSpec

log = logging.getLogger("pytest_vmsnap.fixtures")


@pytest.fixture(scope="session")
def vmsnap(pytestconfig: pytest.Config) -> VmsnapSession:
    """The plugin's own handle: facts of the host, store, states, timings."""
    return pytestconfig.stash[SESSION_KEY]


@pytest.fixture(scope="session")
def vm_spec(pytestconfig: pytest.Config) -> MachineSpec:
    """The machine that tests get, a MachineSpec from the options; override it to change the machine."""
    return pytestconfig.stash[SETTINGS_KEY].spec()


@pytest.fixture
def vm(request: pytest.FixtureRequest, vmsnap: VmsnapSession, vm_spec: MachineSpec) -> Iterator[Machine]:
    """A clean virtual machine (a Machine), by the policy and the test's markers."""
    __tracebackhide__ = True
    wishes = _wishes(request)
    with _errors_told(vmsnap):
        lent = vmsnap.lend(request.node, vm_spec.replace(**wishes.changes), wishes)
        machine = lent.__enter__()
    try:
        yield machine
    finally:
        lent.__exit__(None, None, None)


@pytest.fixture(scope="class")
def vm_class(request: pytest.FixtureRequest, vmsnap: VmsnapSession, vm_spec: MachineSpec) -> Iterator[Machine]:
    """A virtual machine that the tests of a class share, clean at its start."""
    yield from _shared("vm_class", request, vmsnap, vm_spec)


@pytest.fixture(scope="module")
def vm_module(request: pytest.FixtureRequest, vmsnap: VmsnapSession, vm_spec: MachineSpec) -> Iterator[Machine]:
    """A virtual machine that the tests of a module share, clean at its start."""
    yield from _shared("vm_module", request, vmsnap, vm_spec)


@pytest.fixture(scope="session")
def vm_session(
    request: pytest.FixtureRequest, vmsnap: VmsnapSession, vm_spec: MachineSpec
) -> Iterator[Machine]:
    """A virtual machine that all tests of the run share, clean at its start."""
    yield from _shared("vm_session", request, vmsnap, vm_spec)


@pytest.fixture
def vm_factory(
    request: pytest.FixtureRequest, vmsnap: VmsnapSession, vm_spec: MachineSpec
) -> Iterator[Callable[..., Machine]]:
    """``vm_factory(state="base", *, name=None, **spec)``: one more clean machine, until the test ends.

    `name` is what it is called in reports, `spec` are fields of `MachineSpec` that differ from the test's.
    """
    __tracebackhide__ = True
    changes = _wishes(request).changes
    with ExitStack() as stack:

        def make(state: str = BASE, *, name: str | None = None, **spec: Any) -> Machine:
            __tracebackhide__ = True
            with _errors_told(vmsnap):
                wanted = vm_spec.replace(**changes | spec)
                return stack.enter_context(vmsnap.lend_further(request.node, wanted, state, name=name))

        yield make


def _shared(
    fixture: str, request: pytest.FixtureRequest, vmsnap: VmsnapSession, vm_spec: MachineSpec
) -> Iterator[Machine]:
    __tracebackhide__ = True
    with _errors_told(vmsnap):
        wishes = _wishes(request)
        lent = vmsnap.lend_shared(fixture, request.node, vm_spec.replace(**wishes.changes), wishes.state)
        machine = lent.__enter__()
    try:
        yield machine
    finally:
        lent.__exit__(None, None, None)


def _wishes(request: pytest.FixtureRequest) -> selection.Wishes:
    return selection.wishes(request.node.iter_markers(), request.node.nodeid)


@contextmanager
def _errors_told(vmsnap: VmsnapSession) -> Iterator[None]:
    """Turn what went wrong into what a person reads: the message, without the plugin's inner frames."""
    __tracebackhide__ = True
    try:
        yield
    except SpecError as error:
        raise pytest.UsageError(str(error)) from error
    except NoHypervisor as error:
        if vmsnap.settings.missing == "skip":
            raise pytest.skip.Exception(f"no machine can run here: {error.message}") from None
        raise pytest.fail.Exception(str(error), pytrace=False) from None
    except VmsnapError as error:
        if isinstance(error, StateFailed) and error.__cause__ is not None:
            raise  # the project's own preparation: its traceback is what counts
        log.debug("no machine", exc_info=error)
        raise pytest.fail.Exception(str(error), pytrace=False) from None
