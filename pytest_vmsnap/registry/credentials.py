"""The user's logins at registries, from the files that docker and podman write, and their credential helpers.

docker: ``$DOCKER_CONFIG/config.json`` or ``~/.docker/config.json``; podman: containers-auth.json(5).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Iterator


def find(host: str) -> tuple[str, str] | None:
    """The user's name and password at the registry `host`; None if there is no login for it.

    Raises `RegistryError` if a file or a helper cannot be used.
    """
    # late: it is only for a registry with a login, and takes 0.3 s to import
    from docker.auth import load_config
    from docker.errors import DockerException

    for path in files():
        try:
            found = load_config(config_dict=json.loads(path.read_text())).resolve_authconfig(host)
        except (DockerException, ValueError, OSError, AttributeError) as error:
            raise RegistryError(f"the login for {host} cannot be read from {path}: {error}") from error
        if found and (found.get("Username") or found.get("username")):
            return found.get("Username") or found["username"], found.get("Password") or found["password"]
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
