"""Where base images come from: a path, an address, or a Debian that is built here."""

from pytest_vmsnap.image.readiness import look_at
from pytest_vmsnap.image.sources import provide

__all__ = ["provide", "look_at"]
