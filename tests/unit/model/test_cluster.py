"""Which clusters can be asked for."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_vmsnap.errors import SpecError
from pytest_vmsnap.model import ClusterSpec, MachineSpec

TWO: dict[str, dict[str, Any]] = {"server": {"state": "database"}, "client": {"memory": 256}}


def test_each_machine_has_its_changes_to_the_spec_and_the_state_it_starts_from() -> None:
    spec = ClusterSpec.of(TWO, MachineSpec(cpus=2), base="base")
    server, client = spec.members
    assert (server.name, server.state, server.spec) == ("server", "database", MachineSpec(cpus=2))
    assert (client.name, client.state, client.spec) == ("client", "base", MachineSpec(cpus=2, memory=256))
    assert spec.memory == 512 + 256


def test_clusters_of_the_same_machines_are_equal_and_their_order_counts() -> None:
    one, other = (ClusterSpec.of(TWO, MachineSpec(), base="base") for _ in range(2))
    assert len({one, other}) == 1
    turned = ClusterSpec.of(dict(reversed(TWO.items())), MachineSpec(), base="base")
    assert turned != one


def test_fields_that_the_host_decides_are_filled_in_where_they_are_missing() -> None:
    spec = ClusterSpec.of({"a": {"cpus": 1}, "b": {}}, MachineSpec(), base="base").replace_each(cpus=4)
    assert [member.spec.cpus for member in spec.members] == [1, 4]


@pytest.mark.parametrize(
    ("machines", "words"),
    [
        ({}, "2 to 8 machines, not 0"),
        ({"a": {}}, "2 to 8 machines, not 1"),
        ({f"m{number}": {} for number in range(9)}, "2 to 8 machines, not 9"),
        ({"a": {}, "B": {}}, "'B' cannot be the name of a machine: it becomes its host name"),
        ({"a": {}, "b_c": {}}, "'b_c' cannot be"),
        ({"a": {}, "-b": {}}, "'-b' cannot be"),
        ({"a": {}, "b-": {}}, "'b-' cannot be"),
        ({"a": {}, "7": {}}, "'7' cannot be"),
        ({"a": {}, "b" * 64: {}}, "cannot be the name"),
        ({"a": {}, "b\n": {}}, "cannot be the name"),
        ({"a": {}, 7: {}}, "7 cannot be"),
        ({"a": {}, "b": 256}, "b=256: give the machine as a dict"),
        ({"a": {}, "b": {"memroy": 1}}, "b: a machine has no field 'memroy'(.|\n)*its fields are"),
        ({"a": {}, "b": {"memory": "x"}}, "b: memory='x': must be"),
        ({"a": {}, "b": {"state": 7}}, "b: state=7 is not the name of a state"),
        ({"a": {}, "b": {"state": ""}}, "b: state='' is not the name of a state"),
    ],
)
def test_machines_that_cannot_be_are_refused(machines: dict[Any, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        ClusterSpec.of(machines, MachineSpec(), base="base")
