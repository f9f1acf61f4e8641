"""What every running batch must do alike, whoever joins and leaves. A new one joins `RUNNING` and passes as it is."""

from __future__ import annotations

import numpy as np
import pytest

from slmops.engines import Running, load_engine, load_running
from slmops.errors import BadInput


@pytest.fixture(scope="module")
def reference(tiny):
    """Logits behind a sequence, by PyTorch, up to what is the same for all tokens."""
    engine = load_engine("transformers", tiny.folder, threads=1)
    everything = [[id] for id in range(tiny.tokenizer.size)]

    def logits(ids: list[int]) -> np.ndarray:
        if len(ids) == engine.info().context_tokens:
            pytest.fail("there is no place behind a full context")
        return np.concatenate(engine.score([ids] * len(everything), everything))

    return logits


def close(found: np.ndarray, expected: np.ndarray) -> bool:
    log_probs = found - found.max() - np.log(np.exp(found - found.max()).sum())
    return float(np.abs(log_probs[: len(expected)] - expected).max()) < 2e-3


def test_whoever_joins_reads_writes_and_leaves_the_logits_are_those_of_each_alone(running, reference, tiny):
    """A random traffic in which sequences share beginnings with running ones and with those that left."""
    rng = np.random.default_rng(0)
    sequences: dict[int, list[int]] = {}
    for step in range(40):
        steps: dict[int, list[int]] = {}
        for slot in range(running.slots):
            held = sequences.get(slot)
            if held is None or rng.random() < 0.15 or len(held) > running.room - 8:
                steps[slot] = join(running, slot, sequences, rng, tiny.tokenizer.size)
            elif rng.random() < 0.1 and len(held) > 4:
                running.rewind(slot, len(held) - 3)
                del held[-3:]
                steps[slot] = drawn(rng, 1, tiny.tokenizer.size)
            elif rng.random() < 0.7:
                steps[slot] = drawn(rng, 1 if rng.random() < 0.7 else 5, tiny.tokenizer.size)
        for slot, logits in running.run(steps).items() if steps else ():
            sequences[slot] += steps[slot]
            if rng.random() < 0.3 or step == 39:
                assert close(logits[0], reference(sequences[slot])), (step, slot)


def drawn(rng: np.random.Generator, n: int, size: int) -> list[int]:
    return rng.integers(0, size, n).tolist()


def join(
    running: Running, slot: int, sequences: dict[int, list[int]], rng: np.random.Generator, size: int
) -> list[int]:
    """Begin a sequence, half of the time like another one; the first piece of what is to be read."""
    other = sequences.get(int(rng.integers(running.slots)), [])
    prompt = [*(other[: int(rng.integers(60))] if rng.random() < 0.5 else []), *drawn(rng, 12, size)][-100:]
    known = running.begin(slot, prompt)
    sequences[slot] = prompt[:known]
    return prompt[known : known + int(rng.integers(1, len(prompt) - known + 1))]


def test_what_two_prompts_begin_with_is_run_once(running, tiny, reference):
    first, second = tiny.prompt("Where is order 4711?"), tiny.prompt("Where is order 4712?")
    assert running.begin(0, first) < len(first)
    running.run({0: first[running.begin(0, first) :]})
    same = next(i for i, (one, other) in enumerate(zip(first, second, strict=True)) if one != other)
    assert running.begin(1, second) == same
    assert close(running.run({1: second[same:]})[1][0], reference(second))
    # The last token is run anew: its logits are wanted.
    assert running.begin(2, first) == len(first) - 1
    assert close(running.run({2: first[-1:]})[2][0], reference(first))


def test_a_full_sequence_between_others_is_left_alone(running, reference, tiny):
    prompts = [drawn(np.random.default_rng(slot), 20, tiny.tokenizer.size) for slot in range(3)]
    full = drawn(np.random.default_rng(9), running.room, tiny.tokenizer.size)
    for slot, prompt in enumerate([prompts[0], full, prompts[2]]):
        running.run({slot: prompt[running.begin(slot, prompt) :]})
    found = running.run({0: [5], 2: [7]})
    assert close(found[0][0], reference([*prompts[0], 5]))
    assert close(found[2][0], reference([*prompts[2], 7]))
    known = running.begin(3, [*full[:60], 1])
    assert close(running.run({3: [*full[:60], 1][known:]})[3][0], reference([*full[:60], 1]))


def test_guesses_have_logits_too_and_are_taken_back(running, reference, tiny):
    """Of several sequences at once, beside one that reads and one that writes without any."""
    rng, size = np.random.default_rng(3), tiny.tokenizer.size
    texts = {slot: drawn(rng, 10 + slot, size) for slot in range(4)}
    for slot in range(3):
        running.run({slot: texts[slot][running.begin(slot, texts[slot]) :]})
    known = running.begin(3, texts[3])
    steps = {0: drawn(rng, 4, size), 1: drawn(rng, 1, size), 2: drawn(rng, 3, size), 3: texts[3][known:]}
    found = running.run(steps, {0: 3, 2: 2})
    assert [len(found[slot]) for slot in range(4)] == [4, 1, 3, 1]
    for slot, ids in ((0, steps[0]), (2, steps[2])):
        for place in range(len(ids)):
            assert close(found[slot][place], reference([*texts[slot], *ids[: place + 1]])), (slot, place)
    # The first guess alone was right.
    running.rewind(0, len(texts[0]) + 2)
    assert close(running.run({0: [9]})[0][0], reference([*texts[0], *steps[0][:2], 9]))


def test_logits_that_were_given_stay_as_they_are(running, tiny):
    first, second = tiny.prompt("Where is order 4711?"), tiny.prompt("I want my money back")
    found = running.run({0: first[running.begin(0, first) :]})[0]
    before = found.copy()
    others = running.run({0: [5], 1: second[running.begin(1, second) :]})
    assert (found == before).all()
    assert not (others[0] == before).all()


def test_what_cannot_be_served_is_refused(tmp_path):
    with pytest.raises(BadInput, match="marvel cannot be served"):
        load_running("marvel", tmp_path, slots=1)
