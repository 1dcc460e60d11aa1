"""Settings as a machine, and what is hidden of addresses."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_vmsnap.errors import SpecError
from pytest_vmsnap.model import MachineSpec, Settings
from pytest_vmsnap.model.settings import masked


def test_the_settings_describe_a_machine() -> None:
    settings = Settings(root=Path("/project"), memory=1024, cpus=3, packages=("nginx",), network="none")
    assert settings.spec() == MachineSpec(memory=1024, cpus=3, packages=("nginx",), network="none")


def test_settings_that_describe_no_machine_are_refused() -> None:
    with pytest.raises(SpecError, match="needs a kernel"):
        Settings(root=Path("/project"), image=None).spec()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:secret@example.org/a?b", "https://***@example.org/a?***"),
        ("https://token@example.org/a", "https://***@example.org/a"),
        ("qemu+ssh://me@host/system?keyfile=x", "qemu+ssh://***@host/system?keyfile=x"),
        ("qemu:///embed?root=/run/x", "qemu:///embed?root=/run/x"),
        ("https://example.org/a@b", "https://example.org/a@b"),
        ("/images/a@b?c", "/images/a@b?c"),
    ],
)
def test_what_may_be_secret_in_an_address_is_masked(text: str, shown: str) -> None:
    assert masked(text) == shown
