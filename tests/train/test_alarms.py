"""What is warned of, and what is not."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmops.train.alarms import DIVERGED_STEPS, Alarms

LOSSES = st.lists(st.floats(0, 20), min_size=1, max_size=60)


def steps(alarms: Alarms, losses: list[float], norms: list[float] | None = None) -> list[str]:
    pairs = zip(losses, norms or [1.0] * len(losses), strict=True)
    return [said for step, (loss, norm) in enumerate(pairs, 1) for said in alarms.step(step, loss, norm)]


def test_a_noisy_loss_that_falls_is_no_divergence():
    rng = random.Random(0)
    assert steps(Alarms(), [3 * 0.97**i * rng.uniform(0.6, 1.4) for i in range(300)]) == []


def test_a_loss_near_zero_may_double():
    assert steps(Alarms(), [0.01] * 30 + [0.03] * 100) == []


def test_a_loss_that_climbs_and_stays_is_said_once_with_what_to_change():
    alarms = Alarms()
    (said,) = steps(alarms, [1.0] * 30 + [5.0] * 60)
    assert said.startswith("the loss diverges: at step")
    assert "lower learning_rate" in said
    assert 30 + DIVERGED_STEPS <= alarms.given["divergence"] <= 30 + 2 * DIVERGED_STEPS


def test_a_step_whose_loss_compares_with_none_says_nothing_of_it():
    alarms = Alarms()
    for step in range(1, 200):
        assert alarms.step(step, None if step % 2 else 1.0, 1.0) == []
    assert alarms.loss == pytest.approx(1)


def test_a_hill_that_is_crossed_at_once_is_not():
    assert steps(Alarms(), [1.0] * 30 + [5.0] * 2 + [1.0] * 60) == []


def test_a_loss_that_stays_where_it_is_is_said_once_with_what_to_change():
    alarms = Alarms(steps=200)
    (said,) = steps(alarms, [3 * 0.9**i for i in range(20)] + [0.5] * 180)
    assert said.startswith("plateau at step")
    assert "raise learning_rate" in said
    # 50 steps behind the last one that lowered the running mean by a hundredth, which lags the loss.
    assert 100 < alarms.given["plateau"] < 160


@pytest.mark.parametrize(
    ("losses", "steps_in_all"),
    [
        ([0.05] * 200, 200),
        ([3 * 0.995**i for i in range(200)], 200),
        ([2.0] * 200, 1000),
        ([1.0] * 30 + [5.0] * 200, 230),
    ],
)
def test_what_is_learned_or_falls_or_is_young_or_diverges_is_no_plateau(losses, steps_in_all):
    alarms = Alarms(steps=steps_in_all)
    steps(alarms, losses)
    assert "plateau" not in alarms.given


def test_the_third_spike_of_the_gradient_is_said():
    norms = [1.0, 1.2] * 20
    for i in (25, 30, 35):
        norms[i] = 50.0
    alarms = Alarms()
    (said,) = steps(alarms, [1.0] * len(norms), norms)
    assert said.startswith("gradient spikes: at step 36 the norm was 50 and usually is 1")
    norms[35] = 1.0
    assert steps(Alarms(), [1.0] * len(norms), norms) == []


def evaluations(alarms: Alarms, training: list[float], validation: list[float]) -> list[str]:
    said = []
    for step, (loss, held_out) in enumerate(zip(training, validation, strict=True), 1):
        alarms.loss = loss
        said += alarms.evaluated(step, held_out)
    return said


def test_training_that_falls_while_validation_rises_is_overfitting():
    alarms = Alarms()
    (said,) = evaluations(alarms, [5, 4, 3, 2, 1, 0.5], [3, 2, 2.1, 2.2, 2.3, 2.4])
    assert alarms.given == {"overfitting": 5}
    assert "rose from 2 to 2.3 while the training loss fell from 4 to 1" in said
    assert "fewer epochs" in said


def test_both_rising_or_a_single_dip_is_not():
    assert evaluations(Alarms(), [1, 2, 3, 4, 5], [1, 2, 3, 4, 5]) == []
    assert evaluations(Alarms(), [5, 4, 3, 2, 1], [2, 2.1, 2.05, 2.2, 2.3]) == []


@given(LOSSES, st.integers(0, 59), st.data())
def test_alarms_that_go_on_from_their_state_say_the_same(losses, cut, data):
    norms = data.draw(st.lists(st.floats(0, 100), min_size=len(losses), max_size=len(losses)))
    cut = min(cut, len(losses))
    unbroken = Alarms()
    expected = steps(unbroken, losses, norms)
    before = Alarms()
    said = steps(before, losses[:cut], norms[:cut]) if cut else []
    after = Alarms(**json.loads(json.dumps(before.state())))
    for step in range(cut, len(losses)):
        said += after.step(step + 1, losses[step], norms[step])
    assert (said, after) == (expected, unbroken)
    assert len(said) == len(unbroken.given)
