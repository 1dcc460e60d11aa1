"""The user's logins at registries, from the files that docker and podman write, and their credential helpers.

docker: ``$DOCKER_CONFIG/config.json`` or ``~/.docker/config.json``; podman: containers-auth.json(5), in which a
login may be for one repository, or for all below a part of its path.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_vmsnap.errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_vmsnap.registry.address import RegistryAddress


def find(address: RegistryAddress) -> tuple[str, str] | None:
    """The user's name and password at the registry; None if there is no login for it.

    A file or a helper that cannot be used counts if no other has a login: then it raises `RegistryError`.
    """
    # late: it is only for a registry with a login, and takes 0.3 s to import
    from docker.auth import load_config
    from docker.errors import DockerException

    trouble: RegistryError | None = None
    for path in files():
        try:
            config = _of_repository(json.loads(path.read_text()), address)
            found = load_config(config_dict=config).resolve_authconfig(address.host)
        except (DockerException, ValueError, OSError, AttributeError, TypeError) as error:
            trouble = RegistryError(
                f"the login for {address.host} cannot be read from {path}: {error}", is_lost=True
            )
            continue
        if found and "IdentityToken" in found:
            trouble = RegistryError(
                f"the login for {address.host} in {path} is an identity token, which is not supported",
                hint="log in with a name and a password, or an access token as the password",
                is_lost=True,
            )
        elif found and (name := found.get("Username") or found.get("username")):
            return name, found.get("Password") or found["password"]
    if trouble:
        raise trouble
    return None


def files() -> Iterator[Path]:
    """The files with logins that exist, in the order in which they count."""
    home = Path.home()
    config = os.environ.get("XDG_CONFIG_HOME") or home / ".config"
    places = [
        os.environ.get("REGISTRY_AUTH_FILE"),
        Path(os.environ.get("DOCKER_CONFIG") or home / ".docker") / "config.json",
        Path(runtime) / "containers/auth.json" if (runtime := os.environ.get("XDG_RUNTIME_DIR")) else None,
        Path(config) / "containers/auth.json",
    ]
    for place in places:
        if place and Path(place).is_file():
            yield Path(place)


def _of_repository(config: dict[str, Any], address: RegistryAddress) -> dict[str, Any]:
    """`config` with the login, of those for this host, whose path is nearest to the repository's."""
    logins: dict[str, Any] = config.get("auths") or {}
    path = f"{address.host}/{address.repository}"
    nearest = max((key for key in logins if f"{path}/".startswith(f"{key}/")), key=len, default=None)
    if nearest is None or nearest == address.host:
        # a login for another repository of this host is none for this one
        others = [key for key in logins if key.startswith(f"{address.host}/") and key != f"{address.host}/"]
        logins = {
            key: login for key, login in logins.items() if key not in others or key.endswith(("/v1/", "/v2/"))
        }
    else:
        logins = {address.host: logins[nearest]}
    return config | {"auths": logins}
