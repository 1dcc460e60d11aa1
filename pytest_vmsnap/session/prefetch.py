"""Choose which machines to make ahead: those that the next tests are expected to request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_vmsnap import selection

if TYPE_CHECKING:
    import pytest

    from pytest_vmsnap.fork import Saved
    from pytest_vmsnap.model import ClusterSpec, MachineSpec, Revert
    from pytest_vmsnap.session.engine import Engine


class Prefetcher:
    """Tells the pool which snapshots the next tests need; `policy` is the option ``vmsnap_revert``.

    The spec of a test's machine is a fixture's value, which is unknown until the test runs. So a test is
    expected to need the same spec as the last similar test in its file, or else in any file.
    """

    def __init__(self, policy: Revert) -> None:
        self._policy = policy
        # by file (None for any) and `selection.machine_key`
        self._specs: dict[tuple[Any, Any], MachineSpec | ClusterSpec] = {}
        self._following: pytest.Item | None = None

    def note_following(self, following: pytest.Item | None) -> None:
        """Note the test after the current one; None after the last."""
        self._following = following

    def prefetch(self, engine: Engine, node: pytest.Item, spec: MachineSpec | ClusterSpec) -> None:
        """Let the pool make machines for the tests after `node`, whose machine has the spec `spec`."""
        pool = engine.pool
        if not pool.most_ahead:
            return
        kind = selection.machine_key(node)
        self._specs[node.path, kind] = self._specs[None, kind] = spec
        coming: list[Saved] = []
        for item in selection.lookahead(node.session.items, self._following, self._policy, last=node):
            if expected := self._expected(engine, item):
                coming.append(expected)
            if len(coming) == pool.most_ahead:
                break
        pool.expect(coming)

    def ping_next_standby(self, engine: Engine) -> None:
        """Ping the standby for the next test while the current test is torn down, so that it answers sooner."""
        if self._following:
            engine.pool.ping_standby(self._expected(engine, self._following))

    def _expected(self, engine: Engine, item: pytest.Item) -> Saved | None:
        """The snapshot that `item` is expected to need; None if unknown or not there yet."""
        kind = selection.machine_key(item)
        spec = self._specs.get((item.path, kind)) or self._specs.get((None, kind))
        state = selection.requirements(item.iter_markers(), item.nodeid).state
        return engine.library.found.get((spec, state)) if spec else None
