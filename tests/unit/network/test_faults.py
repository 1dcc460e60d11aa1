"""What becomes of a frame between two machines."""

from __future__ import annotations

import json

import pytest

from pytest_vmsnap.network.faults import BACKLOG_SECONDS, REORDER_SECONDS, Fault, FaultSpec, Kind, fate_of

LINK = (0, 1)
BOTH = frozenset({LINK, (1, 0)})


def fates(
    *specs: FaultSpec, count: int = 1, link: tuple[int, int] = LINK, size: int = 1000
) -> list[list[float]]:
    faults = [Fault(spec) for spec in specs]
    return [fate_of(faults, link, 1000, 100.0).delays for _ in range(count)]


def spec(kind: Kind, **more: object) -> FaultSpec:
    return FaultSpec(kind=kind, links=BOTH, **more)  # type: ignore[arg-type]


def test_without_a_fault_a_frame_arrives_once_and_at_once() -> None:
    assert fates() == [[0.0]]


@pytest.mark.parametrize("kind", ["partition", "cut"])
def test_a_frame_is_dropped_on_the_links_of_the_fault_only(kind: Kind) -> None:
    one_way = FaultSpec(kind=kind, links=frozenset({LINK}))
    assert fates(one_way) == [[]]
    assert fates(one_way, link=(1, 0)) == [[0.0]]
    assert fates(one_way, link=(0, 2)) == [[0.0]]


def test_a_delay_is_as_long_as_said_and_jitter_is_around_it() -> None:
    assert fates(spec("delay", seconds=0.5)) == [[0.5]]
    found = [delay for (delay,) in fates(spec("delay", seconds=0.5, jitter=0.2, seed=1), count=200)]
    assert 0.3 <= min(found) < 0.35
    assert 0.65 < max(found) <= 0.7


def test_no_delay_is_below_zero() -> None:
    assert all(delay >= 0 for (delay,) in fates(spec("delay", seconds=0.0, jitter=1.0, seed=1), count=50))


@pytest.mark.parametrize("fraction", [0.0, 0.25, 1.0])
def test_the_share_that_is_lost_is_the_one_asked_for(fraction: float) -> None:
    lost = sum(not delays for delays in fates(spec("loss", fraction=fraction, seed=7), count=4000))
    assert lost == pytest.approx(fraction * 4000, abs=120)


def test_one_seed_loses_the_same_frames_and_another_others() -> None:
    first, again, other = (fates(spec("loss", fraction=0.5, seed=seed), count=64) for seed in (1, 1, 2))
    assert first == again != other


def test_a_duplicate_arrives_twice_and_what_is_reordered_later() -> None:
    assert fates(spec("duplicate", fraction=1.0)) == [[0.0, 0.0]]
    assert fates(spec("reorder", fraction=1.0)) == [[REORDER_SECONDS]]


def test_bandwidth_queues_frames_and_drops_what_waits_too_long() -> None:
    found = fates(spec("bandwidth", rate=10_000.0), count=20)  # each takes 0.1 s
    assert found[:3] == [[pytest.approx(0.1)], [pytest.approx(0.2)], [pytest.approx(0.3)]]
    arrived = [delays for delays in found if delays]
    assert len(arrived) == BACKLOG_SECONDS / 0.1 + 1
    assert found[-1] == []


def test_each_link_has_a_bandwidth_of_its_own() -> None:
    fault = Fault(spec("bandwidth", rate=10_000.0))
    for link in BOTH:
        assert fate_of([fault], link, 1000, 100.0).delays == [pytest.approx(0.1)]


def test_faults_add_up_and_what_is_dropped_stays_so() -> None:
    assert fates(spec("delay", seconds=0.1), spec("delay", seconds=0.2)) == [[pytest.approx(0.3)]]
    assert fates(spec("cut"), spec("duplicate", fraction=1.0), spec("delay", seconds=1.0)) == [[]]


def test_what_happened_is_noted() -> None:
    faults = [Fault(spec("delay", seconds=0.25)), Fault(spec("cut"))]
    assert fate_of(faults, LINK, 1000, 0.0).notes == ["delayed by 0.250 s", "dropped: cut"]


def test_a_fault_goes_through_json() -> None:
    fault = spec("loss", fraction=0.5, seed=3)
    assert FaultSpec.of(json.loads(json.dumps(fault.as_dict()))) == fault
