"""States and images in an OCI registry: pushed by one host, pulled by others instead of being built."""

from pytest_vmsnap.registry.address import RegistryAddress, parse_address
from pytest_vmsnap.registry.artifact import Description, content_of, tag_of
from pytest_vmsnap.registry.connect import open_registry
from pytest_vmsnap.registry.find import digest_in_registry, find
from pytest_vmsnap.registry.protocol import Registry
from pytest_vmsnap.registry.pull import Puller
from pytest_vmsnap.registry.push import Pushed, push

__all__ = [
    "RegistryAddress",
    "parse_address",
    "Registry",
    "open_registry",
    "Description",
    "tag_of",
    "content_of",
    "find",
    "digest_in_registry",
    "Puller",
    "Pushed",
    "push",
]
