import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmops.recipe.training import Together
from slmops.train.processes import Processes, how_many


@given(st.integers(1, 30), st.integers(1, 6), st.integers(1, 6))
def test_the_processes_of_a_step_take_just_its_batches(batches, step, count):
    every = [Processes(rank, count) for rank in range(count)]
    parts = [one.part(batches, step) for one in every]
    assert len({len(part) for part in parts}) == 1, "none waits for another in vain"
    each = every[0].share(step)
    for number, start in enumerate(range(0, batches, step)):
        end = min(start + step, batches)
        shares = [part[number * each : (number + 1) * each] for part in parts]
        assert sorted(taken for share in shares for taken in share if taken is not None) == list(range(start, end))
        assert {len(share) for share in shares} == {every[0].share(end - start)}


def test_alone_everything_is_as_it_is(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    alone = Processes.joined()
    assert alone == Processes()
    assert alone.part(3, 2) == [0, 1, 2]
    assert alone.total([1.5, 2]) == [1.5, 2]
    assert (alone.first_says(True), alone.first_says(False)) == (True, False)


@pytest.mark.parametrize(("gpus", "accumulate", "expected"), [(0, 4, 1), (1, 4, 1), (3, 4, 3), (8, 4, 4)])
def test_auto_takes_a_gpu_for_each_batch_of_a_step(monkeypatch, gpus, accumulate, expected):
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    assert how_many(Together(processes="auto"), accumulate) == expected
    assert how_many(Together(processes=2), accumulate) == 2
