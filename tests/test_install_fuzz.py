"""Damaged consoles: no damage raises, makes a success of what proves none, or a failure of a success cut off."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.install.explain import explain
from builder.install.state import InstallState
from tests.console_mutants import SUCCESSES, corpus, judge, mutant, proves_nothing

if TYPE_CHECKING:
    import random

CORPUS = corpus()
HARMLESS = {name: raw for name, raw in CORPUS.items() if proves_nothing(raw)}
SHORT = {name: raw for name, raw in CORPUS.items() if len(raw) < 20_000}

DICE = st.randoms(use_true_random=True)


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(sorted(SHORT)), DICE)
def test_damage_never_raises(name: str, dice: random.Random) -> None:
    judge(mutant(SHORT[name], list(SHORT.values()), dice), dice)


@settings(deadline=None, max_examples=50)
@given(st.binary(max_size=3000), DICE)
def test_bytes_of_any_kind_never_raise(raw: bytes, dice: random.Random) -> None:
    judge(raw, dice)


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(sorted(HARMLESS)), DICE)
def test_no_damage_makes_a_success_of_what_proves_none(name: str, dice: random.Random) -> None:
    damaged = mutant(HARMLESS[name], list(HARMLESS.values()), dice)
    assert explain(damaged).verdict != "success"


@pytest.mark.parametrize("raw", SUCCESSES)
def test_a_success_cut_off_is_no_failure(raw: bytes) -> None:
    state = InstallState()
    for at in range(len(raw)):
        assert state.verdict().verdict in {"incomplete", "stalled"}, raw[:at][-80:]
        state.feed(raw[at : at + 1])
        if state.verdict().verdict == "success":
            break
    assert b"mode=" in raw[: at + 1]
    assert {explain(raw[:end]).verdict for end in range(0, len(raw), 37)} <= {"incomplete", "stalled", "success"}


@pytest.mark.parametrize("name", [name for name, raw in CORPUS.items() if explain(raw).verdict == "failure"])
def test_a_failure_cut_off_is_never_a_success(name: str) -> None:
    raw = CORPUS[name]
    for end in range(0, len(raw), max(1, len(raw) // 40)):
        assert explain(raw[:end]).verdict != "success"
