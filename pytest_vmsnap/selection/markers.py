"""What a test's markers ask for."""

from __future__ import annotations

import dataclasses
import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_vmsnap.errors import SpecError, VmsnapError
from pytest_vmsnap.model import MachineSpec, expect_machines
from pytest_vmsnap.states import BASE, NO_STATES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    import pytest

    from pytest_vmsnap.selection.revert_policy import Mark
    from pytest_vmsnap.states import StateTree

WIDER = ("vm_class", "vm_module", "vm_session")
CLUSTERS = ("vm_cluster", "vm_cluster_class", "vm_cluster_module", "vm_cluster_session")
MACHINES = ("vm", *WIDER, "vm_factory", *CLUSTERS)


class MarkerError(VmsnapError):
    """A marker has arguments that it does not take, or does not fit the test."""


def vm_fresh() -> None:
    """this test gets a clean machine under every policy"""


def vm_readonly() -> None:
    """this test promises to change nothing in its machine, so it may share one with other such tests"""


def vm_state(name: str) -> None:
    """the state that this test starts from (default: base)"""


def vm(**spec: Any) -> None:
    """change fields of the machine for this test, class or module; such a machine has its own snapshots"""


def vm_cluster(**machines: dict[str, Any]) -> None:
    """the machines of this test's cluster by name: for each, how it differs, and the state it starts from"""


MARKERS: dict[str, Callable[..., None]] = {
    "vm_fresh": vm_fresh,
    "vm_readonly": vm_readonly,
    "vm_state": vm_state,
    "vm": vm,
    "vm_cluster": vm_cluster,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirements:
    """What the markers of a test (or of a class or module) ask for.

    `mark` is ``"fresh"``, ``"readonly"`` or None; `state` is the name of the state to start from; `changes` are
    fields of `MachineSpec`.
    """

    mark: Mark | None = None
    state: str = BASE
    changes: dict[str, Any] = field(default_factory=dict)
    machines: dict[str, Any] | None = None


def signature(name: str) -> inspect.Signature:
    """The signature of the marker `name`; that of ``vm`` has the fields of `MachineSpec`, all optional."""
    if name != "vm":
        written = inspect.signature(MARKERS[name])
        bare = [
            parameter.replace(annotation=inspect.Parameter.empty) for parameter in written.parameters.values()
        ]
        return inspect.Signature(bare)
    fields = [spec.name for spec in dataclasses.fields(MachineSpec)]
    return inspect.Signature([inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in fields])


def marker_lines() -> list[str]:
    """A line for each marker, with its signature and its meaning, for ``pytest --markers``."""
    return [f"{_call(name)}: {function.__doc__}" for name, function in MARKERS.items()]


def requirements(marks: Iterable[pytest.Mark], where: str) -> Requirements:
    """What `marks` ask for at the node id `where`; pass the closest first. Ignores marks of other plugins.

    The fields of several ``vm(...)`` are merged; if two set the same field, the closest wins. The closest of
    several ``vm_state`` wins too.

    Raises `MarkerError` for arguments that a marker does not take, and for ``vm_fresh`` with ``vm_readonly``.
    """
    names: set[str] = set()
    changes: dict[str, Any] = {}
    states: list[str] = []
    machines: dict[str, Any] | None = None
    for mark in marks:
        if mark.name in MARKERS:
            names.add(mark.name)
            arguments = _arguments(mark, where)
            if mark.name == "vm_state":
                states.append(arguments["name"])
            elif mark.name == "vm_cluster":
                machines = machines or dict(mark.kwargs)
            else:
                changes = arguments | changes
    if {"vm_fresh", "vm_readonly"} <= names:
        raise MarkerError(f"{where}: a test cannot have both vm_fresh and vm_readonly")
    return Requirements(
        mark="fresh" if "vm_fresh" in names else "readonly" if "vm_readonly" in names else None,
        state=states[0] if states else BASE,
        changes=changes,
        machines=machines,
    )


def check(
    marks: Iterable[pytest.Mark], fixtures: Collection[str], where: str, tree: StateTree = NO_STATES
) -> None:
    """Check that the test at `where`, which uses `fixtures`, may have its markers.

    Raises `MarkerError` as `requirements` does, and for ``vm_fresh`` on a test that has only shared machines;
    `UnknownState` for a ``vm_state`` that is not in `tree`.
    """
    found = requirements(marks, where)
    tree.require(found.state, f"{where}: vm_state({found.state!r})")
    _check_cluster(found, fixtures, where, tree)
    wider = [name for name in WIDER if name in fixtures]
    if found.mark == "fresh" and wider and "vm" not in fixtures:
        raise MarkerError(
            f"{where}: vm_fresh applies to the fixture vm, but this test uses only {', '.join(wider)}, "
            "which the tests of its scope share"
        )


def _check_cluster(found: Requirements, fixtures: Collection[str], where: str, tree: StateTree) -> None:
    machines = tree.machines(found.state)
    if machines and found.machines is not None:
        raise MarkerError(
            f"{where}: the state {found.state} says which machines there are: leave vm_cluster(...) out"
        )
    tree.expect_single(found.machines or {}, f"{where}: vm_cluster")
    used = [name for name in CLUSTERS if name in fixtures]
    if used and not machines and found.machines is None:
        raise MarkerError(
            f"{where}: {used[0]}: nothing says which machines there are; mark the test with "
            "vm_cluster(NAME={...}, NAME={...}), or with the vm_state of a cluster"
        )
    single = [name for name in ("vm", *WIDER) if name in fixtures]
    if machines and single:
        raise MarkerError(f"{where}: the state {found.state} is of a cluster: use vm_cluster, not {single[0]}")


def uses_machine(fixtures: Collection[str]) -> bool:
    """Whether a test with these fixtures gets a machine."""
    return any(name in fixtures for name in MACHINES)


def _arguments(mark: pytest.Mark, where: str) -> dict[str, Any]:
    try:
        arguments = _bound(mark)
        if mark.name == "vm_state" and not isinstance(arguments["name"], str):
            raise TypeError("the name of a state must be a string")
        if mark.name == "vm":
            for name, value in arguments.items():
                # one at a time: only the fixture vm_spec knows what they are combined with
                MachineSpec(**({"kernel": "any"} | {name: value}))
        if mark.name == "vm_cluster":
            expect_machines(mark.kwargs)
    except (TypeError, SpecError) as error:
        reason = error.message if isinstance(error, SpecError) else error
        raise MarkerError(
            f"{where}: {_written(mark)}: {reason}", hint=f"the signature of the marker is {_call(mark.name)}"
        ) from error
    return arguments


def _bound(mark: pytest.Mark) -> dict[str, Any]:
    taken = signature(mark.name)
    bind = taken.bind_partial if mark.name == "vm" else taken.bind  # all arguments of vm are optional
    return bind(*mark.args, **mark.kwargs).arguments


def _written(mark: pytest.Mark) -> str:
    parts = [repr(value) for value in mark.args] + [f"{name}={value!r}" for name, value in mark.kwargs.items()]
    return f"{mark.name}({', '.join(parts)})"


def _call(name: str) -> str:
    return f"{name}{signature(name)}"
