from hypothesis import given
from hypothesis import strategies as st

from slmops.train.stopping import Lowest, evaluation_steps


@given(st.lists(st.floats(0, 10), min_size=1, max_size=30))
def test_the_lowest_is_the_first_of_the_smallest(losses):
    lowest = Lowest()
    better = [lowest.take(step, loss) for step, loss in enumerate(losses, 1)]
    first = losses.index(min(losses))
    assert (lowest.loss, lowest.step, lowest.waited) == (losses[first], first + 1, len(losses) - 1 - first)
    assert better == [loss < min(losses[:i], default=float("inf")) for i, loss in enumerate(losses)]
    assert Lowest(**lowest.state()) == lowest


@given(st.integers(1, 500), st.floats(0.1, 20), st.floats(0.01, 1))
def test_evaluations_are_spread_over_the_steps_and_the_last_has_one(steps, epochs, every):
    at = evaluation_steps(steps, epochs, every)
    assert max(at) == steps
    assert min(at) >= 1
    assert len(at) <= epochs / every + 1


def test_half_a_pass_between_two():
    assert evaluation_steps(30, 6, 0.5) == {2, 5, 8, 10, 12, 15, 18, 20, 22, 25, 28, 30}
    assert evaluation_steps(7, 0.3, 1) == {7}
