"""What a runtime with adapters must do alike: each answers as the model that it is merged into, whoever else runs."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

from slmops.engines import RUNNING, Engine, Running, Sampling, load_engine, load_running
from slmops.engines.base import Adaptable
from slmops.engines.running import Adapting
from slmops.errors import BadInput
from tests.adapters import NAMES, Adapted, adapted_models

ABLE = ("onnxruntime-genai", "transformers")
GREEDY = Sampling(max_tokens=12)


@pytest.fixture(scope="module")
def models(tiny, tmp_path_factory) -> dict[str, Adapted]:
    return adapted_models(tiny.folder, tmp_path_factory.mktemp("adapted"))


@pytest.fixture(scope="module")
def merged(models) -> dict[str | None, Engine]:
    """What PyTorch makes of the base, and of each adapter merged into it."""
    base = load_engine("transformers", models["transformers"].model, threads=1)
    return {None: base, **{name: base.adapted(path) for name, path in models["transformers"].adapters.items()}}


@pytest.fixture(scope="module", params=ABLE)
def able(request, models) -> tuple[str, Adapted]:
    return request.param, models[request.param]


def written(engine: Engine, prompts: list[list[int]]) -> list[list[int]]:
    tokens = list(engine.generate(prompts, GREEDY))
    return [[token.id for token in tokens if token.request == row] for row in range(len(prompts))]


def test_an_engine_with_an_adapter_answers_as_the_merged_model_and_without_as_before(able, merged, tiny):
    name, model = able
    engine = load_engine(name, model.model, threads=1)
    assert isinstance(engine, Adaptable)
    prompts = [tiny.prompt(text) for text in tiny.pairs]
    answers = {None: written(engine, prompts)}
    for one, path in model.adapters.items():
        adapted = engine.adapted(path)
        answers[one] = written(adapted, prompts)
        assert answers[one] == written(merged[one], prompts)
        scores = zip(adapted.score(prompts, answers[one]), merged[one].score(prompts, answers[one]), strict=True)
        assert all(np.abs(mine - theirs).max() < 2e-3 for mine, theirs in scores)
        choices = [[5, 6], [7], [5, 8]]
        chosen = adapted.score_choices(prompts, choices), merged[one].score_choices(prompts, choices)
        np.testing.assert_array_equal(*(each.argmax(axis=1) for each in chosen))
        assert written(engine, prompts) == answers[None]
    assert answers[None] == written(merged[None], prompts)
    assert len({str(each) for each in answers.values()}) == 3, "the adapters say something else than the base"


def test_rows_of_one_batch_have_an_adapter_each(able, merged, tiny):
    """Rows come, read in pieces, write, wind back and leave, with the base and both adapters beside each other."""
    name, model = able
    running = load_running(name, model.model, slots=4, threads=1)
    held = adapters_of(running, model)
    rng = np.random.default_rng(0)
    worn: dict[int, str | None] = {}
    sequences: dict[int, list[int]] = {}
    for step in range(40):
        steps: dict[int, list[int]] = {}
        for slot in range(4):
            if slot not in worn or rng.random() < 0.15:
                worn[slot] = (None, *NAMES)[rng.integers(3)]
                # Half of all prompts begin like one that runs with whatever it runs.
                other = sequences.get(int(rng.integers(4)), [])[:20] if rng.random() < 0.5 else []
                prompt = [*other, *rng.integers(0, tiny.tokenizer.size, 6).tolist()]
                known = running.begin(slot, prompt, held[worn[slot]])
                sequences[slot], steps[slot] = prompt[:known], prompt[known:]
            elif rng.random() < 0.8 and len(sequences[slot]) < 60:
                steps[slot] = rng.integers(0, tiny.tokenizer.size, 1).tolist()
        for slot, logits in running.run(steps).items() if steps else ():
            sequences[slot] += steps[slot]
            if step % 3 == 0:
                assert_same(logits[0], merged[worn[slot]], sequences[slot])


def adapters_of(running: Running, model: Adapted) -> dict[str | None, object]:
    assert isinstance(running, Adapting)
    assert running.adapts
    return {None: None, **{name: running.load_adapter(path) for name, path in model.adapters.items()}}


def assert_same(logits: np.ndarray, reference: Engine, sequence: list[int]) -> None:
    (token,) = reference.generate([sequence], Sampling(max_tokens=1), top_logits=20)
    ids, expected = token.top
    np.testing.assert_allclose(logits[ids] - logits[ids[0]], expected - expected[0], atol=3e-3)


def test_what_was_run_with_another_adapter_is_not_taken_over(able, tiny, merged):
    name, model = able
    running = load_running(name, model.model, slots=4, threads=1)
    held = adapters_of(running, model)
    prompt = tiny.prompt("Where is order 4711?")
    for slot, adapter in enumerate((None, *NAMES)):
        known = running.begin(slot, prompt, held[adapter])
        assert known == 0, f"the cache of another adapter was given to {adapter}"
        assert_same(running.run({slot: prompt})[slot][0], merged[adapter], prompt)
    for adapter in (None, *NAMES):
        assert running.begin(3, prompt, held[adapter]) == len(prompt) - 1, "its own is"
        assert_same(running.run({3: prompt[-1:]})[3][0], merged[adapter], prompt)


def test_an_adapter_that_nobody_holds_is_given_up(models, tiny):
    model = models["onnxruntime-genai"]
    running = load_running("onnxruntime-genai", model.model, slots=2, threads=1)
    held = adapters_of(running, model)
    prompt = tiny.prompt("Where is order 4711?")
    for slot, name in enumerate(NAMES):
        running.run({slot: prompt[running.begin(slot, prompt, held[name]) :]})
    running.run({0: [5], 1: [5]})
    seen = [weakref.ref(held[name]) for name in NAMES]
    held.clear()
    gc.collect()
    assert [each() for each in seen] == [None, None]
    assert running.begin(0, prompt) == 0, "what it left behind is not the base's"


@pytest.mark.parametrize("running", sorted(set(RUNNING) - set(ABLE)), indirect=True)
def test_other_runtimes_refuse_one(running):
    assert not isinstance(running, Adapting)
    with pytest.raises(BadInput, match="runs no adapters"):
        running.begin(0, [1, 2, 3], object())


def test_a_file_that_does_not_fit_is_refused(able, models, tmp_path, tiny, tiny_onnx):
    name, model = able
    engine, running = load_engine(name, model.model, threads=1), load_running(name, model.model, slots=1, threads=1)
    for refuse in (engine.adapted, running.load_adapter):
        with pytest.raises(BadInput, match="adapter"):
            refuse(tmp_path / "nothing")
    if name == "onnxruntime-genai":
        content = bytearray(model.adapters["first"].read_bytes())
        cut = tmp_path / "cut.onnx_adapter"
        cut.write_bytes(content[: len(content) // 2])
        with pytest.raises(BadInput, match="cannot be read"):
            running.load_adapter(cut)
        with pytest.raises(BadInput, match="no slots"):
            load_engine(name, tiny_onnx, threads=1).adapted(model.adapters["first"])
