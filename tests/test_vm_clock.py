"""Seconds in which nobody looked, because nothing ran, are no patience spent."""

from __future__ import annotations

import pytest

from builder.vm.clock import AwakeClock, patiently


class Time:
    """A clock that goes where it is told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_seconds_looked_at_count_as_they_go() -> None:
    source = Time()
    clock = AwakeClock(source)
    assert clock.seconds() == 0
    for _ in range(100):
        source.now += 4.5
        clock.seconds()
    assert clock.seconds() == pytest.approx(450)


def test_a_long_gap_counts_as_the_longest_and_no_more() -> None:
    source = Time()
    clock = AwakeClock(source, longest=5)
    source.now += 3
    assert clock.seconds() == 3
    source.now += 3600
    assert clock.seconds() == 8
    source.now += 2
    assert clock.seconds() == 10


def test_a_clock_that_goes_backwards_takes_nothing_away() -> None:
    source = Time()
    clock = AwakeClock(source)
    source.now += 2
    assert clock.seconds() == 2
    source.now -= 10
    assert clock.seconds() == 2
    source.now += 1
    assert clock.seconds() == 3


def test_it_runs_on_the_systems_clock_by_itself() -> None:
    clock = AwakeClock()
    first = clock.seconds()
    assert 0 <= first <= clock.seconds()


def test_what_is_waited_for_is_looked_at_in_slices_until_it_comes() -> None:
    source, slices = Time(), []

    def look(seconds: float) -> bool:
        slices.append(seconds)
        source.now += seconds
        return len(slices) == 5

    assert patiently(look, 100, source)
    assert slices == [1.0] * 5


def test_patience_ends_when_its_seconds_have_gone() -> None:
    source = Time()

    def look(seconds: float) -> bool:
        source.now += seconds
        return False

    begun = source.now
    assert not patiently(look, 10, source)
    assert source.now - begun == pytest.approx(10)
    assert not patiently(look, 0, source)


def test_a_pause_in_a_wait_takes_only_a_little_of_it() -> None:
    source, looks = Time(), 0

    def look(seconds: float) -> bool:
        nonlocal looks
        looks += 1
        source.now += 3600 if looks == 2 else seconds
        return looks == 6

    assert patiently(look, 4, source)
