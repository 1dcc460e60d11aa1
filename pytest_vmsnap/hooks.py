"""The calling of this plugin's hooks: all implementations, the outermost conftest's first."""

from __future__ import annotations

from typing import Any


def call_outermost_first(caller: Any, **arguments: Any) -> None:
    """Call every implementation of the hook behind `caller`, in the order in which they were registered.

    pluggy's own order is the reverse, so that the innermost conftest has the first word; a machine is prepared
    from the outside in. ``tryfirst`` and ``trylast`` hold; wrappers are not called.
    """
    found = [hook for hook in caller.get_hookimpls() if not (hook.wrapper or hook.hookwrapper)]
    order = sorted(found, key=lambda hook: (not hook.tryfirst, hook.trylast))
    for hook in order:
        hook.function(*(arguments[name] for name in hook.argnames))
