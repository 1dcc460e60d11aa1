"""Call this plugin's hooks: all implementations, the outermost conftest's first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def call_outermost_first(caller: Any, **arguments: Any) -> None:
    """Call every implementation of the hook that `caller` calls, in the order of registration.

    pluggy's own order is the reverse: it calls the innermost conftest first. A machine is prepared from the
    outermost conftest to the innermost. ``tryfirst`` and ``trylast`` are respected; wrappers are not called.
    """
    for hook in _ordered(caller):
        hook.function(*(arguments[name] for name in hook.argnames))


def implementations(caller: Any) -> list[Callable[..., object]]:
    """The functions that `call_outermost_first` calls, in the order in which it calls them."""
    return [hook.function for hook in _ordered(caller)]


def _ordered(caller: Any) -> list[Any]:
    found = [hook for hook in caller.get_hookimpls() if not (hook.wrapper or hook.hookwrapper)]
    return sorted(found, key=lambda hook: (not hook.tryfirst, hook.trylast))
