"""The processor that a guest sees, and what of it is in a state's key."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_vmsnap.host.guest_cpu import LEVELS, cpu_element, guest_cpu

if TYPE_CHECKING:
    from pathlib import Path

KVM: Any = SimpleNamespace(name="kvm")
TCG: Any = SimpleNamespace(name="tcg")


def test_a_named_model_is_all_that_the_key_has_of_the_processor(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("vendor_id: GenuineIntel\nmodel: 85\nflags: fpu avx\n\n")
    assert "model: 85" in guest_cpu(KVM, "host", cpuinfo)
    assert guest_cpu(KVM, "EPYC", cpuinfo) == "EPYC, GenuineIntel"  # QEMU takes the vendor from the host
    assert guest_cpu(TCG, "EPYC", cpuinfo) == "EPYC"


@pytest.mark.parametrize("level", LEVELS)
def test_each_level_has_the_features_of_the_one_below(level: str) -> None:
    features = cpu_element("kvm", level).findall("feature")
    names = [feature.get("name") for feature in features]
    assert set(LEVELS["x86-64-v2"]) <= set(names)
    assert len(names) == len(set(names))
    assert "svm" not in [each.get("name") for each in features if each.get("policy") == "require"]


def test_under_kvm_libvirt_checks_that_the_host_has_the_model() -> None:
    assert cpu_element("kvm", "EPYC").get("check") == "partial"
    assert cpu_element("kvm", "host").get("mode") == "host-passthrough"
    assert cpu_element("qemu", "host").get("mode") == "maximum"
