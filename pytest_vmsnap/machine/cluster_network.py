"""The private network of a cluster: its addresses, its faults, and captures of its traffic."""

from __future__ import annotations

import difflib
import secrets
from collections import deque
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pytest_vmsnap.errors import SpecError, SwitchGone
from pytest_vmsnap.network import Address, FaultSpec, address_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from os import PathLike

    from pytest_vmsnap.network.faults import Kind
    from pytest_vmsnap.network.switch import Switch

SEED_BITS = 32
MOST_ENDED = 20  # faults that have ended, which a report still names


class NetworkFault:
    """A fault at work; `heal` ends it, and so does the end of its ``with`` block."""

    def __init__(self, network: ClusterNetwork, spec: FaultSpec, shown: str) -> None:
        self._network = network
        self._shown = shown
        self.spec = spec

    def __repr__(self) -> str:
        return self._shown

    def heal(self) -> None:
        """End the fault; nothing happens if it has ended, or if the cluster was reverted since."""
        self._network.end(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.heal()


class ClusterNetwork:
    """The private network between the machines of a cluster; `switch` gives the one that is there now.

    A fault applies to all machines, to one, or to two of them, as you name none, one or two. It works in both
    directions; with ``one_way=True``, only on what the first sends. Faults end with `NetworkFault.heal`, with
    their ``with`` block, and with a revert. Several apply in the order in which they began.
    """

    def __init__(self, switch: Callable[[], Switch]) -> None:
        self._switch = switch
        self._active: list[NetworkFault] = []
        self._ended: deque[str] = deque(maxlen=MOST_ENDED)

    @property
    def faults(self) -> tuple[NetworkFault, ...]:
        """The faults at work."""
        return tuple(self._active)

    def address(self, machine: str) -> Address:
        """Return the addresses of `machine` on this network; raises `SpecError` if there is no such machine."""
        return address_of(machine, self._place(machine))

    def partition(self, *groups: Collection[str], one_way: bool = False) -> NetworkFault:
        """Separate the `groups` of machines from each other; a single group is separated from all others.

        A machine in no group still reaches all. With `one_way`, only what the first group sends is dropped.
        Raises `SpecError` for unknown machines, or one that is in two groups; `SwitchGone`.
        """
        if not groups or any(isinstance(group, str) or not group for group in groups):
            raise SpecError(
                f"partition{groups!r}: give groups of machines", hint='e.g. partition({"a"}, {"b", "c"})'
            )
        places = [{self._place(name) for name in group} for group in groups]
        if len(places) == 1:
            places.append(set(range(len(self._names))) - places[0])
        if sum(map(len, places)) != len(set().union(*places)):
            raise SpecError(f"partition{groups!r}: a machine is in two groups")
        links = {
            (source, target)
            for number, group in enumerate(places)
            for other in (*places[:number], *places[number + 1 :])
            for source in group
            for target in other
            if not one_way or number == 0
        }
        shown = (
            f"partition({', '.join(str(sorted(group)) for group in groups)}{', one_way' if one_way else ''})"
        )
        return self._begin("partition", frozenset(links), shown)

    def cut(self, machine: str, *, one_way: bool = False) -> NetworkFault:
        """Drop all frames of `machine`; with `one_way`, only those that it sends. Raises as `partition`."""
        return self._begin("cut", self._links((machine,), one_way), f"cut({machine!r})")

    def delay(
        self,
        seconds: float,
        *machines: str,
        jitter: float = 0.0,
        one_way: bool = False,
        seed: int | None = None,
    ) -> NetworkFault:
        """Delay frames by `seconds`, plus or minus a random part of up to `jitter` seconds.

        With `jitter`, frames may overtake each other. `seed` makes the random part repeatable. Raises as
        `partition`.
        """
        _expect_between("delay", "seconds", seconds, 0, 3600)
        _expect_between("delay", "jitter", jitter, 0, 3600)
        values = {"seconds": float(seconds), "jitter": float(jitter)}
        return self._random("delay", machines, one_way, seed if jitter else 0, **values)

    def loss(
        self, fraction: float, *machines: str, one_way: bool = False, seed: int | None = None
    ) -> NetworkFault:
        """Lose this `fraction` of the frames, from 0 to 1, at random. Raises as `partition`."""
        return self._share("loss", fraction, machines, one_way, seed)

    def duplicate(
        self, fraction: float, *machines: str, one_way: bool = False, seed: int | None = None
    ) -> NetworkFault:
        """Deliver this `fraction` of the frames twice. Raises as `partition`."""
        return self._share("duplicate", fraction, machines, one_way, seed)

    def reorder(
        self, fraction: float, *machines: str, one_way: bool = False, seed: int | None = None
    ) -> NetworkFault:
        """Hold this `fraction` of the frames back, so that later ones overtake them. Raises as `partition`."""
        return self._share("reorder", fraction, machines, one_way, seed)

    def bandwidth(self, bytes_per_second: float, *machines: str, one_way: bool = False) -> NetworkFault:
        """Limit what each machine sends to each other one; what does not fit in half a second is dropped.

        Raises as `partition`.
        """
        _expect_between("bandwidth", "bytes_per_second", bytes_per_second, 1, 1e12)
        return self._random("bandwidth", machines, one_way, 0, rate=float(bytes_per_second))

    def heal(self) -> None:
        """End all faults. Raises `SwitchGone`."""
        self._apply([])

    @contextmanager
    def capture(self, path: str | PathLike[str]) -> Iterator[None]:
        """Write all frames of the ``with`` block to the file `path` on the host, as pcapng.

        A frame that a fault dropped or delayed has a comment that says so. The file appears, or replaces an
        older one, at the end of the block. Raises `OSError` if it cannot be written, `SwitchGone`.
        """
        switch, target = self._switch(), Path(path)
        draft = target.absolute().with_name(f".{target.name[:200]}.vmsnap-{secrets.token_hex(4)}")
        switch.begin_capture(draft)
        try:
            yield
            if not switch.end_capture(draft):
                raise OSError(f"the capture {path} broke off: there is no space left, or it may not be written")
            draft.replace(target)
        finally:
            with suppress(SwitchGone):
                switch.end_capture(draft)
            draft.unlink(missing_ok=True)

    def evidence(self, path: Path | None) -> list[str]:
        """Return lines that describe the network for a report; write the last frames to `path`, as pcapng."""
        lines = [f"fault, ended: {fault}" for fault in self._ended]
        lines += [f"fault: {fault!r}" for fault in self._active]
        try:
            if path:
                self._switch().save_trace(path)
                lines.append(f"the last frames: {path}")
        except SwitchGone as error:
            lines.append(error.message)
        except OSError as error:
            lines.append(f"the last frames could not be written to {path}: {error}")
        return lines

    def reset(self, specs: Sequence[FaultSpec] = ()) -> None:
        """Be another switch's network, with the faults that it has."""
        self._ended.clear()
        self._active = [NetworkFault(self, spec, f"{spec.kind} of the saved state") for spec in specs]

    def _share(
        self, kind: Kind, fraction: float, machines: tuple[str, ...], one_way: bool, seed: int | None
    ) -> NetworkFault:
        _expect_between(kind, "fraction", fraction, 0, 1)
        return self._random(kind, machines, one_way, seed, fraction=float(fraction))

    def _random(
        self, kind: Kind, machines: tuple[str, ...], one_way: bool, seed: int | None, **values: float
    ) -> NetworkFault:
        seed = secrets.randbits(SEED_BITS) if seed is None else seed
        words = [f"{value:g}" for value in values.values()] + [repr(name) for name in machines]
        words += ["one_way=True"] * one_way + [f"seed={seed}"] * bool(seed)
        links = self._links(machines, one_way)
        return self._begin(kind, links, f"{kind}({', '.join(words)})", seed=seed, **values)

    def _begin(self, kind: Kind, links: frozenset[tuple[int, int]], shown: str, **values: Any) -> NetworkFault:
        fault = NetworkFault(self, FaultSpec(kind=kind, links=links, **values), shown)
        self._apply([*self._active, fault])
        return fault

    def end(self, fault: NetworkFault) -> None:
        """End one fault; nothing happens if it has ended."""
        if fault in self._active:
            self._apply([other for other in self._active if other is not fault])

    def _apply(self, faults: list[NetworkFault]) -> None:
        self._switch().set_faults([fault.spec for fault in faults])
        self._ended.extend(repr(fault) for fault in self._active if fault not in faults)
        self._active = faults

    @property
    def _names(self) -> tuple[str, ...]:
        return self._switch().machines

    def _links(self, machines: tuple[str, ...], one_way: bool) -> frozenset[tuple[int, int]]:
        if len(machines) > 2 or len(set(machines)) < len(machines):
            raise SpecError(f"{machines!r}: name no machine (all), one, or two different ones")
        chosen = [self._place(name) for name in machines]
        everyone = range(len(self._names))
        sources = chosen[:1] or everyone
        targets = chosen[1:] or everyone
        links = {(source, target) for source in sources for target in targets if source != target}
        return frozenset(links if one_way else links | {(target, source) for source, target in links})

    def _place(self, name: str) -> int:
        names = self._names
        if name not in names:
            near = difflib.get_close_matches(str(name), names, 1)
            raise SpecError(
                f"there is no machine {name!r} in this cluster",
                hint=f"{f'did you mean {near[0]}? ' if near else ''}its machines are {', '.join(names)}",
            )
        return names.index(name)


def _expect_between(what: str, name: str, value: float, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise SpecError(f"{what}: {name}={value!r} must be a number from {low:g} to {high:g}")
