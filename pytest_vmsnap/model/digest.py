"""Keys that are made from content."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def digest(parts: Mapping[str, Any]) -> str:
    """Return a key for `parts`: 20 hexadecimal digits, equal for equal parts in any order.

    Values are what JSON can hold; `str` converts any other value.
    """
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:20]
