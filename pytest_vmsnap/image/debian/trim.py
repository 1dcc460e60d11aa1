"""What is taken out of a Debian so that it boots fast on an emulated processor.

docs/images.md says the same in words; keep both alike.
"""

from __future__ import annotations

PACKAGES = ("busybox",)

CMDLINE = "quiet"

FILES: dict[str, str] = {}

SETUP = ""


def links() -> dict[str, str]:
    """Path and target of each symbolic link that trims."""
    return {}
