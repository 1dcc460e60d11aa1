"""Which machines can be asked for."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_vmsnap.errors import SpecError
from pytest_vmsnap.model import Disk, MachineSpec, digest


def test_a_spec_is_equal_to_one_of_the_same_values() -> None:
    assert MachineSpec(packages=["nginx"], disks=[{"size": 64}]) == MachineSpec(  # type: ignore[arg-type]
        packages=("nginx",), disks=(Disk(size=64),)
    )


def test_a_spec_can_be_a_key() -> None:
    assert len({MachineSpec(), MachineSpec(), MachineSpec(memory=1024)}) == 2


def test_replacing_a_field_gives_another_spec() -> None:
    spec = MachineSpec()
    assert spec.replace(memory=1024) == MachineSpec(memory=1024)
    assert spec == MachineSpec()


def test_a_field_that_there_is_not_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(SpecError, match=r"no field 'memroy'(.|\n)*memory"):
        MachineSpec().replace(memroy=1024)


@pytest.mark.parametrize(
    "fields",
    [
        {"memory": 31},
        {"memory": "512"},
        {"memory": True},
        {"memory": 512.0},
        {"cpus": 0},
        {"cpus": 256},
        {"network": "bridge"},
        {"image": 5},
        {"image": None},
        {"cmdline": 5},
        {"packages": "nginx"},
        {"packages": [5]},
        {"screen": 1},
        {"disks": ["/dev/sda"]},
        {"disks": [{"bus": "nvme", "size": 1}]},
        {"disks": [{}]},
        {"disks": [{"size": 1, "source": "a.raw"}]},
        {"disks": [{"size": 0}]},
    ],
)
def test_a_machine_that_cannot_be_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(SpecError):
        MachineSpec(**fields)


def test_a_machine_without_a_disk_needs_only_a_kernel() -> None:
    assert MachineSpec(image=None, kernel="vmlinuz").image is None


def test_keys_are_equal_for_equal_specs_only() -> None:
    assert digest(MachineSpec().as_dict()) == digest(MachineSpec().as_dict())
    assert digest(MachineSpec().as_dict()) != digest(MachineSpec(cpus=3).as_dict())


def test_the_order_of_parts_does_not_change_a_key() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
