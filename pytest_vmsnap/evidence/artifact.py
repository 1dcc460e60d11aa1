"""A file of evidence about a machine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A file `name` with `data`; `title` is its name as an attachment."""

    name: str
    title: str
    data: bytes

    @property
    def is_image(self) -> bool:
        """Whether it is a picture (PNG), not text."""
        return self.name.endswith(".png")
