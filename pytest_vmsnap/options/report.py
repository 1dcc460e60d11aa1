"""The options that differ from their defaults, for pytest's header."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_vmsnap.model.settings import masked
from pytest_vmsnap.options.option import shown
from pytest_vmsnap.options.table import OPTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_vmsnap.model import Origin, Settings
    from pytest_vmsnap.options.option import Option


def changed(settings: Settings) -> Iterator[tuple[str, str, Origin]]:
    """Yield name, value as text, and origin of each option that differs from its default; hide secrets."""
    for option in OPTIONS:
        value = getattr(settings, option.name)
        if value != option.default:
            yield option.name, _shown(option, value, settings.root), settings.origins[option.name]


def _shown(option: Option, value: object, root: Path) -> str:
    if option.secret:
        return "***"
    if option.make_absolute and isinstance(value, str | Path) and Path(value).is_relative_to(root):
        return str(Path(value).relative_to(root))
    return masked(shown(value))
