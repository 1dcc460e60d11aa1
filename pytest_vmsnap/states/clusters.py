"""Clusters as states: their machines are joined on a private network, prepared, and saved at one moment."""

from __future__ import annotations

import secrets
from contextlib import ExitStack
from typing import TYPE_CHECKING

from pytest_vmsnap.guest import JOIN_SCRIPT, join_network, stop_calendar_timers
from pytest_vmsnap.machine import Cluster, History
from pytest_vmsnap.network import address_of
from pytest_vmsnap.pool import for_each
from pytest_vmsnap.states import cache_key, entries
from pytest_vmsnap.states.base_state import BOOT_SECONDS
from pytest_vmsnap.states.function_source import source_parts
from pytest_vmsnap.states.preparation import observed, run_preparation
from pytest_vmsnap.store import EntryName

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from pytest_vmsnap.fork import ClusterSnapshot, DomainFactory, Snapshot
    from pytest_vmsnap.guest import ChannelFactory
    from pytest_vmsnap.machine import Deadlines
    from pytest_vmsnap.model import ClusterSpec
    from pytest_vmsnap.pool import ClusterLease, Provisioner
    from pytest_vmsnap.progress import Progress
    from pytest_vmsnap.states.entries import Origin
    from pytest_vmsnap.states.preparation import PreparationHook
    from pytest_vmsnap.store import Store


def join_parts(members: Mapping[str, str], prepare: PreparationHook, root: Path) -> dict[str, object]:
    """All that a joined cluster depends on: its `members`' keys by name, our script, and the `prepare` hook.

    `root` is the project's root.
    """
    return {
        "format": cache_key.FORMAT,
        "members": list(members.items()),
        "join": JOIN_SCRIPT,
        "prepare": [source_parts(function, root) for function in prepare.implementations],
    }


class ClusterBuilder:
    """Builds the entries of clusters in the `store`; `observe` is called with what a failed one leaves."""

    def __init__(
        self,
        *,
        store: Store,
        factory: DomainFactory,
        provisioner: Provisioner,
        channel_factory: ChannelFactory,
        deadlines: Callable[[], Deadlines],
        progress: Progress,
        observe: Callable[[History], None],
    ) -> None:
        self._store = store
        self._factory = factory
        self._provisioner = provisioner
        self._channel_factory = channel_factory
        self._deadlines = deadlines
        self._progress = progress
        self._observe = observe

    def build(
        self,
        draft: Path,
        spec: ClusterSpec,
        lease: ClusterLease,
        *,
        state: str,
        parent: str | None,
        prepare: Callable[..., object] | None,
        origin: Callable[[str, str | None], Origin],
    ) -> list[EntryName]:
        """Fill the directory `draft` of the entry of `state` with the machines of `lease`, which is ended.

        Without the key of a `parent`, they have no private network yet, and join one. `prepare`, if any, is
        called with the cluster; `origin` gives the origin of a state by its name and its parent's key. Returns
        the entries of the machines. Raises `StateFailed`, `RevertError`, `ChannelError`, `StoreFull`.
        """
        __tracebackhide__ = True
        seconds = BOOT_SECONDS * self._deadlines().factor
        histories = {
            each.name: History(f"state {state}/{each.name}", member=each.name) for each in spec.members
        }
        with ExitStack() as stack:
            stack.push(lease.__exit__)
            cluster = Cluster.of(
                lease,
                spec,
                state=state,
                deadlines=self._deadlines(),
                ssh_login=self._channel_factory.ssh,
                histories=histories,
                progress=self._progress,
            )
            with observed(histories.values(), self._observe):
                if parent is None:
                    with self._progress.step(f"joining {', '.join(cluster)} on a private network"):
                        self._join(lease, seconds)
                if prepare:
                    run_preparation(cluster, prepare, self._progress)
            with self._progress.step(f"saving the cluster {state}"):
                for each in lease.leases.values():
                    stop_calendar_timers(each.channel, timeout=seconds)
                self._factory.writable_directory(draft)
                saved = lease.save(draft, timeout=seconds)
        starts = {name: each.clone.snapshot.directory.name for name, each in lease.leases.items()}
        members = {name: self._stored(name, saved, starts, state, origin) for name in saved.machines}
        entries.seal_cluster(draft, members, saved.faults, origin(state, parent))
        return [EntryName(kind=entries.KIND, key=key) for key in members.values()]

    def _join(self, lease: ClusterLease, seconds: float) -> None:
        addresses = [address_of(name, place) for place, name in enumerate(lease.leases)]
        for_each(
            lambda own: join_network(lease.leases[own.name].channel, own, addresses, timeout=seconds), addresses
        )

    def _stored(
        self,
        name: str,
        saved: ClusterSnapshot,
        starts: Mapping[str, str],
        state: str,
        origin: Callable[[str, str | None], Origin],
    ) -> str:
        """Make an entry of the machine `name`; `starts` are the keys of what each machine was made from.

        Returns its key. Each save has keys of its own: machines of two moments never meet in one cluster. The
        entry depends on what its peers were made from too, so that it goes when they go.
        """
        parent = starts[name]
        parts = {"state": state, "machine": name, "parent": parent, "save": secrets.token_hex(16)}
        key = cache_key.key_of(parts)

        def build(draft: Path) -> None:
            self._factory.writable_directory(draft)
            snapshot: Snapshot = entries.moved(saved.machines[name], draft)
            entries.seal(self._store, draft, snapshot, origin(f"{state}/{name}", parent))

        self._store.provide(
            entries.KIND,
            key,
            f"machine {name} of {state}",
            build,
            depends_on=[
                EntryName(kind=entries.KIND, key=key) for key in dict.fromkeys([parent, *starts.values()])
            ],
        )
        saved.machines[name].directory.rmdir()
        return key
