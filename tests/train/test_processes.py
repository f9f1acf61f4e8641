from hypothesis import given
from hypothesis import strategies as st

from slmops.train.examples import in_steps
from slmops.train.processes import Processes

BATCHES = st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=4), min_size=1, max_size=20)


@given(BATCHES, st.integers(1, 4), st.integers(1, 4))
def test_the_processes_of_a_step_take_just_its_batches(batches, count, accumulate):
    parts = [in_steps(Processes(rank, count).part(batches), accumulate) for rank in range(count)]
    steps = in_steps(batches, accumulate * count)
    assert {len(part) for part in parts} == {len(steps)}
    for step, shares in zip(steps, zip(*parts, strict=True), strict=True):
        taken = [batch for share in shares for batch in share if batch]
        assert sorted(taken) == sorted(step)
        assert len({len(share) for share in shares}) == 1


@given(BATCHES, st.integers(1, 4))
def test_a_batch_of_a_process_has_a_number_among_all(batches, count):
    for processes in (Processes(rank, count) for rank in range(count)):
        for place, batch in enumerate(processes.part(batches)):
            number = processes.number(place)
            assert batch == (batches[number] if number < len(batches) else [])


def test_alone_everything_is_as_it_is(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    alone = Processes.joined()
    assert alone == Processes()
    assert alone.part([[1], [2, 3]]) == [[1], [2, 3]]
    assert alone.total([1.5, 2]) == [1.5, 2]
    assert (alone.first_says(True), alone.first_says(False)) == (True, False)
