"""Which login counts: of docker's and podman's files, for this host and this repository."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest

from pytest_vmsnap.errors import RegistryError
from pytest_vmsnap.registry import parse_address
from pytest_vmsnap.registry.credentials import find

if TYPE_CHECKING:
    from pathlib import Path

ADDRESS = parse_address("oci://registry.example.org/team/states")


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)


def login(name: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{name}:secret".encode()).decode()}


def write(path: Path, logins: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"auths": logins}))


@pytest.mark.parametrize(
    ("logins", "found"),
    [
        ({"registry.example.org": login("host")}, "host"),
        ({"https://registry.example.org/v1/": login("old")}, "old"),
        ({"registry.example.org/team": login("team"), "registry.example.org": login("host")}, "team"),
        ({"registry.example.org/team/states": login("one"), "registry.example.org/team": login("team")}, "one"),
        ({"registry.example.org/other": login("other"), "registry.example.org": login("host")}, "host"),
        ({"registry.example.org/other": login("other")}, None),
        ({"registry.example.org/tea": login("other")}, None),
        ({"another.example.org": login("other")}, None),
        ({}, None),
    ],
)
def test_the_nearest_login_counts(tmp_path: Path, logins: dict[str, Any], found: str | None) -> None:
    write(tmp_path / ".config/containers/auth.json", logins)
    assert find(ADDRESS) == (found and (found, "secret"))


def test_docker_s_login_counts_before_podman_s(tmp_path: Path) -> None:
    write(tmp_path / ".config/containers/auth.json", {"registry.example.org": login("podman")})
    write(tmp_path / ".docker/config.json", {"registry.example.org": login("docker")})
    assert find(ADDRESS) == ("docker", "secret")


def test_a_broken_file_hides_no_other_login(tmp_path: Path) -> None:
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker/config.json").write_text("{")
    with pytest.raises(RegistryError, match=r"cannot be read from .*config\.json"):
        find(ADDRESS)
    write(tmp_path / ".config/containers/auth.json", {"registry.example.org": login("podman")})
    assert find(ADDRESS) == ("podman", "secret")


def test_an_identity_token_is_named(tmp_path: Path) -> None:
    write(tmp_path / ".docker/config.json", {"registry.example.org": login("x") | {"identitytoken": "secret"}})
    with pytest.raises(RegistryError, match="identity token") as caught:
        find(ADDRESS)
    assert "secret" not in str(caught.value)
