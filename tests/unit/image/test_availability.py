"""Whether an image can be had, without having it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap.image import check_image
from pytest_vmsnap.image.debian import MISSING_KEYS, key_of, plan_of, tools
from pytest_vmsnap.model import Finding, ImageRequest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def looked_at(store: Path, image: str | None, **request: object) -> tuple[Finding, Finding]:
    asked = ImageRequest(image=image, root=store, **request)  # type: ignore[arg-type] # as the test says
    first, second = check_image(asked, store / "store")
    assert (first.name, second.name) == ("image", "image-tools")
    return first, second


@pytest.fixture
def no_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path without any program."""
    monkeypatch.setattr("pytest_vmsnap.image.commands.SYSTEM_DIRECTORIES", ())
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))


@pytest.mark.usefixtures("no_tools")
def test_an_image_that_cannot_be_built_is_a_failure_that_says_what_to_install(tmp_path: Path) -> None:
    image, found = looked_at(tmp_path, "debian:trixie")
    assert (image.status, image.found) == ("ok", "debian:trixie, built at its first use")
    assert found.status == "failure"
    assert "mmdebstrap" in found.found
    assert found.advice == tools.INSTALL


@pytest.mark.usefixtures("no_tools")
def test_an_image_in_the_store_needs_no_tools(tmp_path: Path) -> None:
    (tmp_path / "store" / "images" / key_of(plan_of("trixie", ("nginx",)))).mkdir(parents=True)
    image, found = looked_at(tmp_path, "debian:trixie", packages=("nginx",))
    assert image.found == "debian:trixie, in the store"
    assert (found.status, found.advice) == ("warning", tools.INSTALL)
    assert looked_at(tmp_path, "debian:trixie")[1].status == "failure"  # another one


def test_a_name_that_is_no_suite_is_a_failure(tmp_path: Path) -> None:
    image, found = looked_at(tmp_path, "debian:Tr ixie")
    assert image.status == "failure"
    assert found.found == "not checked: no image"


@pytest.fixture
def tools_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs of these names, which are never run."""
    directory = tmp_path / "bin"
    directory.mkdir()
    for name in ("mmdebstrap", "mke2fs", "qemu-img", "tar", "fakeroot", "fakechroot"):
        (directory / name).write_text("#!/bin/sh\nexit 1\n")
        (directory / name).chmod(0o755)
    monkeypatch.setattr("pytest_vmsnap.image.commands.SYSTEM_DIRECTORIES", ())
    monkeypatch.setenv("PATH", str(directory))


@pytest.mark.usefixtures("tools_there")
def test_the_mode_that_mmdebstrap_works_in_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "debian-archive-keyring.gpg").touch()
    monkeypatch.setattr(tools, "KEYS", (tmp_path,))
    mode = "root" if os.geteuid() == 0 else "fakechroot"
    _, found = looked_at(tmp_path, "debian:trixie")
    assert (found.status, found.found) == ("ok", f"mmdebstrap works in {mode} mode")


@pytest.mark.usefixtures("tools_there")
def test_missing_keys_are_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "KEYS", (tmp_path / "none",))
    _, found = looked_at(tmp_path, "debian:trixie")
    assert (found.status, found.advice) == ("warning", MISSING_KEYS)


def test_a_path_is_looked_at_and_needs_no_tools(tmp_path: Path, make_disk: Callable[..., Path]) -> None:
    make_disk("own.qcow2")
    image, found = looked_at(tmp_path, str(tmp_path / "own.qcow2"))
    assert (image.status, found.status) == ("ok", "ok")
    assert found.found == "not checked: only debian:SUITE is built here"


def test_a_path_that_is_not_there_is_a_failure(tmp_path: Path) -> None:
    image, found = looked_at(tmp_path, str(tmp_path / "none.qcow2"))
    assert image.status == "failure"
    assert "none.qcow2" in image.found
    assert found.status == "ok"


def test_an_address_is_told_without_its_secrets(tmp_path: Path) -> None:
    image, _ = looked_at(tmp_path, "https://me:secret@images.example/a.qcow2?token=secret", sha256="0" * 64)
    assert image.status == "ok"
    assert "images.example/a.qcow2" in image.found
    assert "secret" not in image.found


def test_no_image_is_well(tmp_path: Path) -> None:
    image, _ = looked_at(tmp_path, None, kernel="vmlinuz")
    assert (image.status, image.found) == ("ok", "none: the kernel vmlinuz boots without a disk")
