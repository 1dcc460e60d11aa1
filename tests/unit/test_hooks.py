from __future__ import annotations

import pluggy

from pytest_vmsnap.hooks import call_outermost_first, implementations

spec, impl = pluggy.HookspecMarker("x"), pluggy.HookimplMarker("x")


class Specs:
    @spec
    def prepare(self, vm: list[str], spec: str) -> None: ...


def plugin(name: str, **options: bool) -> object:
    class Plugin:
        @impl(**options)
        def prepare(self, vm: list[str]) -> None:
            vm.append(name)

    return Plugin()


def test_implementations_run_in_the_order_of_their_registration() -> None:
    manager = pluggy.PluginManager("x")
    manager.add_hookspecs(Specs)
    for one in (
        plugin("outer"),
        plugin("last", trylast=True),
        plugin("inner"),
        plugin("first", tryfirst=True),
        plugin("innermost"),
    ):
        manager.register(one)
    seen: list[str] = []
    call_outermost_first(manager.hook.prepare, vm=seen, spec="s")
    assert seen == ["first", "outer", "inner", "innermost", "last"]


def test_the_implementations_are_listed_in_the_order_in_which_they_run() -> None:
    manager = pluggy.PluginManager("x")
    manager.add_hookspecs(Specs)
    plugins = [plugin("outer"), plugin("inner"), plugin("first", tryfirst=True)]
    for one in plugins:
        manager.register(one)
    outer, inner, first = (one.prepare for one in plugins)  # type: ignore[attr-defined]
    assert implementations(manager.hook.prepare) == [first, outer, inner]
