"""Debian images that mmdebstrap builds on this host."""

from pytest_vmsnap.image.debian.provide import key_of, plan_of, provide_debian
from pytest_vmsnap.image.debian.tools import MISSING_KEYS, has_keys
from pytest_vmsnap.image.debian.tools import mode as build_mode

__all__ = ["provide_debian", "plan_of", "key_of", "build_mode", "has_keys", "MISSING_KEYS"]
