"""Base images: from a path, from an address, or a Debian that the plugin builds."""

from pytest_vmsnap.image.availability import check_image
from pytest_vmsnap.image.checksum import DISK, expect_own_checksum
from pytest_vmsnap.image.kinds import provide

__all__ = ["provide", "check_image", "DISK", "expect_own_checksum"]
