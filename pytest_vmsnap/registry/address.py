"""The address of a repository in a registry."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

SCHEME = "oci://"
ALLOWED = "oci://HOST/REPOSITORY, for example oci://registry.example.org/team/states"
# OCI distribution specification 1.1, "Pulling manifests"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*")
_HOST = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryAddress:
    """A `repository` of the registry at `host`, a name or an IP address with an optional port."""

    host: str
    repository: str

    def __str__(self) -> str:
        return f"{SCHEME}{self.host}/{self.repository}"

    @property
    def is_loopback(self) -> bool:
        """Whether the registry is on this host, where a connection without TLS is allowed."""
        name = self.host
        if name.startswith("["):
            name = name[1 : name.index("]")]
        elif ":" in name:
            name = name.partition(":")[0]
        try:
            return ipaddress.ip_address(name).is_loopback
        except ValueError:
            return name == "localhost"


def parse_address(text: str) -> RegistryAddress:
    """Return the address that `text` writes, as ``oci://HOST/REPOSITORY``; raises `ValueError`."""
    if not text.startswith(SCHEME):
        raise ValueError("no oci:// address")
    host, _, repository = text.removeprefix(SCHEME).partition("/")
    if not _HOST.fullmatch(host):
        raise ValueError("no host")
    if not _REPOSITORY.fullmatch(repository) or len(repository) > 255:
        raise ValueError("no repository")
    return RegistryAddress(host=host, repository=repository)
