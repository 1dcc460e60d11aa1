"""A Debian that is built here, by mmdebstrap."""

from pytest_vmsnap.image.debian.provide import provide_debian

__all__ = ["provide_debian"]
