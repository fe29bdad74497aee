"""Seconds in which nobody looked, because nothing ran, are no patience spent."""

from __future__ import annotations

import pytest

from builder.vm.clock import AwakeClock


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
