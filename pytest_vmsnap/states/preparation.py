"""Have the project prepare a machine, or a cluster, before it is saved as a state."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import StateFailed
from pytest_vmsnap.machine import Cluster, History

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from pytest_vmsnap.machine import Machine
    from pytest_vmsnap.progress import Progress


@dataclass(frozen=True, slots=True)
class PreparationHook:
    """A hook that prepares a machine or a cluster: its `implementations`, in order, and `call` for all of them.

    `call` takes what is prepared, and its spec. A state's key has the source of each implementation.
    """

    implementations: Sequence[Callable[..., object]]
    call: Callable[..., object]


@contextmanager
def observed(history: History | Iterable[History], observe: Callable[[History], None]) -> Iterator[None]:
    """Call `observe` with each machine's history if the ``with`` block raises, before the machine ends."""
    try:
        yield
    except Exception:
        for each in [history] if isinstance(history, History) else history:
            observe(each)
        raise


def run_preparation(machine: Machine | Cluster, prepare: Callable[..., object], progress: Progress) -> None:
    """Call `prepare` with a machine, or cluster, that is saved afterwards, and sync its file systems.

    Raises `StateFailed` from the original error if that fails.
    """
    what = f"the preparation of the state {machine.state}"
    with progress.step(f"preparing the state {machine.state}"):
        try:
            prepare(machine)
            for each in machine.values() if isinstance(machine, Cluster) else [machine]:
                each.succeed("sync")
        except Exception as error:
            raise StateFailed(f"{what} failed: {type(error).__name__}: {error}") from error
        finally:
            machine.release(what)
