"""A piece of evidence: a file of what a machine could say."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A file `name` with `data`; `title` is what it is called where it is attached."""

    name: str
    title: str
    data: bytes

    @property
    def is_image(self) -> bool:
        """Whether it is a picture (PNG), and no text."""
        return self.name.endswith(".png")
