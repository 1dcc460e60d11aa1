"""Units that can never become active, by what systemctl prints of them."""

from __future__ import annotations

import pytest

from pytest_vmsnap.machine.systemd_units import UnitState, advice, inactive_reason, parsed

NOT_FOUND = UnitState(active="inactive", load="not-found")
KNOWN = ["nginx.service", "ssh.service", "systemd-networkd.service", "multi-user.target"]


def test_a_units_state_is_read() -> None:
    text = (
        "LoadState=not-found\nActiveState=inactive\n"
        'LoadError=org.freedesktop.systemd1.NoSuchUnit "Unit a=b.service not found."\n'
    )
    assert parsed(text) == UnitState(active="inactive", load="not-found", error="Unit a=b.service not found.")


@pytest.mark.parametrize(
    ("load", "words"),
    [
        ("not-found", "systemd does not know it"),
        ("bad-setting", r"cannot use its file \(bad-setting\)"),
        ("error", r"cannot use its file \(error\)"),
        ("masked", "is masked"),
    ],
)
def test_a_unit_that_cannot_be_loaded_cannot_become_active(load: str, words: str) -> None:
    assert words.replace("\\", "") in inactive_reason("a.service", UnitState(active="inactive", load=load))


@pytest.mark.parametrize("load", ["loaded", "stub", "merged"])
def test_a_unit_that_is_about_to_be_started_looks_like_one_that_is_not(load: str) -> None:
    assert inactive_reason("a.service", UnitState(active="inactive", load=load)) == ""


@pytest.mark.parametrize("active", ["active", "activating", "reloading", "deactivating"])
@pytest.mark.parametrize("load", ["not-found", "masked", "error", "bad-setting"])
def test_what_runs_runs_whatever_its_file_has_become(active: str, load: str) -> None:
    assert inactive_reason("a.service", UnitState(active=active, load=load)) == ""


@pytest.mark.parametrize(
    "unit", ["mnt.mount", "swapfile.swap", "session-2.scope", "dev-vdb.device", "/mnt", "/dev/vdb"]
)
def test_units_that_come_without_a_file_may_come_later(unit: str) -> None:
    assert inactive_reason(unit, NOT_FOUND) == ""


@pytest.mark.parametrize(
    ("unit", "near"), [("ngnix", "nginx.service"), ("multiuser.target", "multi-user.target")]
)
def test_the_nearest_names_are_told(unit: str, near: str) -> None:
    assert f"did you mean: {near}?" in advice(unit, NOT_FOUND, KNOWN)


def test_what_to_do_is_told() -> None:
    words = advice("nosuchthing", NOT_FOUND, KNOWN)
    assert "no unit has a similar name" in words
    assert "daemon-reload" in words
    assert "systemctl is-active nosuchthing.service" in words
    assert "unmask a.service" in advice("a.service", UnitState(active="inactive", load="masked"), KNOWN)
    assert "systemd-analyze verify" in advice("a.service", UnitState(active="inactive", load="error"), KNOWN)
