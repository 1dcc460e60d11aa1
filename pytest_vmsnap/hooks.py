"""The calling of this plugin's hooks: all implementations, the outermost conftest's first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def call_outermost_first(caller: Any, **arguments: Any) -> None:
    """Call every implementation of the hook behind `caller`, in the order in which they were registered.

    pluggy's own order is the reverse, so that the innermost conftest has the first word; a machine is prepared
    from the outside in. ``tryfirst`` and ``trylast`` hold; wrappers are not called.
    """
    for hook in _ordered(caller):
        hook.function(*(arguments[name] for name in hook.argnames))


def implementations(caller: Any) -> list[Callable[..., object]]:
    """The functions that `call_outermost_first` calls, in that order."""
    return [hook.function for hook in _ordered(caller)]


def _ordered(caller: Any) -> list[Any]:
    found = [hook for hook in caller.get_hookimpls() if not (hook.wrapper or hook.hookwrapper)]
    return sorted(found, key=lambda hook: (not hook.tryfirst, hook.trylast))
