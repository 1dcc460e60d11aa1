"""The fixtures that the plugin provides."""

from __future__ import annotations

import logging
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from pytest_vmsnap import selection
from pytest_vmsnap.errors import NoHypervisor, SpecError, StateFailed, VmsnapError
from pytest_vmsnap.model import ClusterSpec
from pytest_vmsnap.session import SESSION_KEY, SETTINGS_KEY, VmsnapSession
from pytest_vmsnap.states import BASE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_vmsnap.machine import Cluster, Machine
    from pytest_vmsnap.model import MachineSpec

log = logging.getLogger("pytest_vmsnap.fixtures")


@pytest.fixture(scope="session")
def vmsnap(pytestconfig: pytest.Config) -> VmsnapSession:
    """The plugin's session: facts about the host, the store, the states in use, and timings."""
    return pytestconfig.stash[SESSION_KEY]


@pytest.fixture(scope="session")
def vm_spec(pytestconfig: pytest.Config) -> MachineSpec:
    """The `MachineSpec` of the machine that tests get, from the options; override it to change the machine."""
    return pytestconfig.stash[SETTINGS_KEY].spec()


@pytest.fixture
def vm(request: pytest.FixtureRequest, vmsnap: VmsnapSession, vm_spec: MachineSpec) -> Iterator[Machine]:
    """A virtual machine (a `Machine`): clean, unless the policy or the test's markers let tests share one."""
    __tracebackhide__ = True
    requirements = _requirements(request)
    with _errors_told(vmsnap):
        provided = vmsnap.provide(request.node, vm_spec.replace(**requirements.changes), requirements)
        machine = provided.__enter__()
    try:
        yield machine
    finally:
        provided.__exit__(None, None, None)


@pytest.fixture(scope="class")
def vm_class(request: pytest.FixtureRequest, vmsnap: VmsnapSession, vm_spec: MachineSpec) -> Iterator[Machine]:
    """A virtual machine that all tests of a class share; clean when the first one gets it."""
    yield from _shared("vm_class", request, vmsnap, vm_spec)


@pytest.fixture(scope="module")
def vm_module(request: pytest.FixtureRequest, vmsnap: VmsnapSession, vm_spec: MachineSpec) -> Iterator[Machine]:
    """A virtual machine that all tests of a module share; clean when the first one gets it."""
    yield from _shared("vm_module", request, vmsnap, vm_spec)


@pytest.fixture(scope="session")
def vm_session(
    request: pytest.FixtureRequest, vmsnap: VmsnapSession, vm_spec: MachineSpec
) -> Iterator[Machine]:
    """A virtual machine that all tests of the run share; clean when the first one gets it."""
    yield from _shared("vm_session", request, vmsnap, vm_spec)


@pytest.fixture
def vm_factory(
    request: pytest.FixtureRequest, vmsnap: VmsnapSession, vm_spec: MachineSpec
) -> Iterator[Callable[..., Machine]]:
    """A function ``vm_factory(state="base", *, name=None, **spec)`` that returns another clean machine.

    The machine ends with the test. Reports call it `name`, or a number without one; `spec` are the fields of
    `MachineSpec` that differ from the test's machine.
    """
    __tracebackhide__ = True
    changes = _requirements(request).changes
    with ExitStack() as stack:

        def make(state: str = BASE, *, name: str | None = None, **spec: Any) -> Machine:
            __tracebackhide__ = True
            with _errors_told(vmsnap):
                wanted = vm_spec.replace(**changes | spec)
                return stack.enter_context(vmsnap.provide_further(request.node, wanted, state, name=name))

        yield make


@pytest.fixture
def vm_cluster(
    request: pytest.FixtureRequest, vmsnap: VmsnapSession, vm_spec: MachineSpec
) -> Iterator[Cluster]:
    """Clean machines on a private network (a `Cluster`); the marker ``vm_cluster`` or the state says which."""
    yield from _cluster("vm_cluster", request, vmsnap, vm_spec)


@pytest.fixture(scope="class")
def vm_cluster_class(
    request: pytest.FixtureRequest, vmsnap: VmsnapSession, vm_spec: MachineSpec
) -> Iterator[Cluster]:
    """A cluster that all tests of a class share; it is clean at the start."""
    yield from _cluster("vm_cluster_class", request, vmsnap, vm_spec)


@pytest.fixture(scope="module")
def vm_cluster_module(
    request: pytest.FixtureRequest, vmsnap: VmsnapSession, vm_spec: MachineSpec
) -> Iterator[Cluster]:
    """A cluster that all tests of a module share; it is clean at the start."""
    yield from _cluster("vm_cluster_module", request, vmsnap, vm_spec)


@pytest.fixture(scope="session")
def vm_cluster_session(
    request: pytest.FixtureRequest, vmsnap: VmsnapSession, vm_spec: MachineSpec
) -> Iterator[Cluster]:
    """A cluster that all tests of the run share; it is clean at the start."""
    yield from _cluster("vm_cluster_session", request, vmsnap, vm_spec)


def _cluster(
    fixture: str, request: pytest.FixtureRequest, vmsnap: VmsnapSession, vm_spec: MachineSpec
) -> Iterator[Cluster]:
    __tracebackhide__ = True
    with _errors_told(vmsnap):
        requirements = _requirements(request)
        machines = vmsnap.tree.machines(requirements.state) or requirements.machines or {}
        spec = ClusterSpec.of(machines, vm_spec.replace(**requirements.changes), base=BASE)
        for member in spec.members:
            vmsnap.tree.require(member.state, f"the machine {member.name} of the cluster")
        provided = vmsnap.provide_cluster(fixture, request.node, spec, requirements.state)
        cluster = provided.__enter__()
    try:
        yield cluster
    finally:
        provided.__exit__(None, None, None)


def _shared(
    fixture: str, request: pytest.FixtureRequest, vmsnap: VmsnapSession, vm_spec: MachineSpec
) -> Iterator[Machine]:
    __tracebackhide__ = True
    with _errors_told(vmsnap):
        requirements = _requirements(request)
        provided = vmsnap.provide_shared(
            fixture, request.node, vm_spec.replace(**requirements.changes), requirements.state
        )
        machine = provided.__enter__()
    try:
        yield machine
    finally:
        provided.__exit__(None, None, None)


def _requirements(request: pytest.FixtureRequest) -> selection.Requirements:
    return selection.requirements(request.node.iter_markers(), request.node.nodeid)


@contextmanager
def _errors_told(vmsnap: VmsnapSession) -> Iterator[None]:
    """Turn the plugin's errors into what pytest shows: the message, without the plugin's own frames."""
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
            raise  # the project's own preparation failed: show its traceback
        log.debug("no machine", exc_info=error)
        raise pytest.fail.Exception(str(error), pytrace=False) from None
