"""A model that labels: labels are whole values, requests are read exactly, and both runtimes say the same."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis.extra import numpy as arrays

from slmops.compress.convert import convert
from slmops.engines import Sampling, engine_of, load_engine
from slmops.engines.reading import Reader
from slmops.engines.tagging import best_spans
from slmops.errors import BadInput
from slmops.models.source import load_model
from slmops.models.tag_head import TagHead
from slmops.recipe.compress import CompressSettings
from slmops.tasks.marking import Marking
from slmops.train.collate import collate
from slmops.train.examples import Example
from slmops.train.objectives.observe import answer_logits
from tests.runtimes import needs
from tests.tagger import save_tagger
from tests.tiny_task import SCHEMA, TASK

MARKING = Marking.of(SCHEMA)
LABELS = MARKING.sizes[0]


def whole(path: tuple[int, ...]) -> bool:
    """Whether no value goes on that has not begun."""
    return all(
        label % 2 or label == 0 or before in (label, label - 1) for before, label in itertools.pairwise((0, *path))
    )


@given(arrays.arrays(np.float32, (4, 5), elements=st.integers(-20, 0).map(float)))
def test_the_labels_are_the_most_likely_that_make_whole_values(log_probs):
    marking = Marking({"a": False, "b": False}, {}, frozenset())
    best = max(sum(log_probs[range(4), path]) for path in itertools.product(range(5), repeat=4) if whole(path))
    spans, reached = best_spans(marking, log_probs)
    assert reached == pytest.approx(best)
    assert len({name for name, _, _ in spans}) == len(spans)


def test_of_two_values_of_a_field_the_surer_is_taken():
    log_probs = np.log(np.array([[0.1, 0.9, 0], [0.9, 0.1, 0], [0.2, 0.8, 0]], dtype=np.float32) + 1e-9)
    assert best_spans(Marking({"a": False}, {}, frozenset()), log_probs)[0] == [("a", 0, 1)]


@given(st.text(max_size=40))
def test_a_request_gives_its_message_back(tiny_tokenizer, text):
    reading = Reader(TASK.describe(), tiny_tokenizer).reading(tiny_tokenizer.prompt(TASK.render(text)))
    assert reading.message == text
    assert len(reading.again) == len(reading.places) + len(MARKING.options)
    covered = {i for start, end in reading.places for i in range(start, end)}
    assert covered == set(range(len(text)))


def test_marks_become_labels_and_labels_the_answer(tiny_tokenizer):
    reader = Reader(TASK.describe(), tiny_tokenizer)
    text, answer = "Zoë wants 20 € for 4711", {"intent": "refund", "name": "Zoë", "amount": "20 €", "order": "4711"}
    reading = reader.reading(tiny_tokenizer.prompt(TASK.render(text)))
    labels = reader.labels(reading, reader.marking.mark(text, answer))
    certain = np.where(np.arange(LABELS) == np.array(labels[: len(reading.places)])[:, None], 0, -9).astype(np.float32)
    option = labels[-1] - reader.marking.first_option("intent")
    written = reader.answer(reading, best_spans(reader.marking, certain)[0], [option])
    assert TASK.parse(written) == answer


@pytest.fixture(scope="module")
def tagger(tiny, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tagger")
    save_tagger(tiny.folder, folder)
    return folder


def answers(engine, prompts):
    written = [[] for _ in prompts]
    for token in engine.generate(prompts, Sampling(max_tokens=60), top_logits=1):
        written[token.request].append(token)
    return written


def test_a_saved_head_is_loaded_again_and_the_language_head_with_it(tagger, tiny):
    model, plain = load_model(tagger), load_model(tiny.folder)
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        log_probs = model(ids).logits
        states, expected = model.base_model(ids), plain.base_model(ids)
    assert log_probs.shape[-1] == sum(MARKING.sizes)
    for group in log_probs.split(MARKING.sizes, dim=-1):
        torch.testing.assert_close(group.logsumexp(-1), torch.zeros(1, 3), atol=1e-5, rtol=0)
    assert torch.equal(states.last_hidden_state, expected.last_hidden_state)
    assert "lm_head" not in " ".join(
        name for name, _ in model.named_parameters() if "matrix" not in name and "bias" not in name
    )


@pytest.mark.parametrize("runtime", ["onnxruntime-genai", "openvino"])
@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
def test_onnx_labels_as_pytorch_does_one_by_one_and_together(tagger, tiny, tmp_path, precision, runtime):
    needs(runtime)
    settings = CompressSettings(precision=precision, algorithm="rtn", runtime=runtime)
    convert(tagger, tmp_path / "onnx", settings, scratch=tmp_path / "scratch")
    assert engine_of(tmp_path / "onnx") == runtime
    torch_engine = load_engine("transformers", tagger, threads=1)
    onnx_engine = load_engine(runtime, tmp_path / "onnx", threads=1)
    prompts = [tiny.prompt(text) for text in tiny.pairs]
    expected, together = answers(torch_engine, prompts), answers(onnx_engine, prompts)
    alone = [answers(onnx_engine, [prompt])[0] for prompt in prompts]
    assert [[t.id for t in one] for one in alone] == [[t.id for t in one] for one in together]
    if precision == "fp32":
        assert [[t.id for t in one] for one in expected] == [[t.id for t in one] for one in together]
    for one, other in zip(expected, together, strict=True):
        apart = abs(one[0].top[1][0] - other[0].top[1][0])
        assert apart < {"fp32": 1e-3, "int8": 0.5, "int4": 5.0}[precision]
        assert one[-1].finish == other[-1].finish == "stop"
    info = onnx_engine.info()
    assert info.engine == runtime.removesuffix("-genai")
    assert precision == "fp32" or precision in info.precision
    assert info.parameters == torch_engine.info().parameters


@pytest.mark.parametrize("text", ["Where is order 4711?", ""])
def test_the_engine_reads_what_training_makes_likely(tagger, tiny, text):
    model = load_model(tagger)
    reading = Reader(TASK.describe(), tiny.tokenizer).reading(tiny.prompt(text))
    example = Example(reading.prompt, reading.again, labels=(0,) * len(reading.again))
    with torch.no_grad():
        trained = answer_logits(model, collate([example], pad=0)).numpy()
    tokens, labels = len(reading.places), trained[:, :LABELS]
    options = trained[tokens, LABELS:]
    (written,) = answers(load_engine("transformers", tagger, threads=1), [tiny.prompt(text)])
    spans = best_spans(MARKING, labels[:tokens])[1]
    assert written[0].top[1][0] == pytest.approx(spans + options.max(), abs=1e-4)
    answer = TASK.parse(tiny.tokenizer.decode([token.id for token in written if token.finish is None]))
    assert answer["intent"] == MARKING.options["intent"][options.argmax()]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=4), st.integers(0, 9))
def test_what_a_message_is_called_is_the_smooth_maximum_over_its_tokens(lengths, seed):
    random, sizes = torch.Generator().manual_seed(seed), (3, 4, 2)
    head = TagHead(6, sizes, {})
    torch.nn.init.normal_(head.matrix, generator=random)
    states = [torch.randn(length + 2, 6, generator=random) for length in lengths]
    with torch.no_grad():
        together = head.read(torch.cat(states), [len(one) for one in states])
        for one, read in zip(states, together.split([len(one) for one in states]), strict=True):
            plain = (one.double() @ (8 * head.matrix.double()).T).numpy()
            torch.testing.assert_close(read[:-2], head(one)[:-2])
            for end, group in ((-2, slice(3, 7)), (-1, slice(7, 9))):
                seen = np.exp(np.concatenate([plain[:-2], plain[[end]]])[:, group]).sum(0)
                expected = np.log(seen) - np.log(seen.sum())
                np.testing.assert_allclose(read[end, group].numpy(), expected, atol=1e-3)


def test_a_head_of_another_format_is_refused(tagger, tmp_path):
    folder = shutil.copytree(tagger, tmp_path / "old")
    tags = json.loads((folder / "tags.json").read_text())
    (folder / "tags.json").write_text(json.dumps({key: value for key, value in tags.items() if key != "format"}))
    with pytest.raises(BadInput, match="has format 1"):
        load_engine("transformers", folder, threads=1)


def test_what_does_not_label_is_refused(tagger, tiny):
    engine = load_engine("transformers", tagger, threads=1)
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    with pytest.raises(BadInput, match="one message"):
        list(engine.generate([tiny.tokenizer.prompt([{"role": "system", "content": "s"}, *talk])], Sampling()))
    with pytest.raises(BadInput, match="cannot score"):
        engine.score([[1]], [[2]])
    with pytest.raises(BadInput, match="cannot score"):
        engine.score_top([[1]], [[2]], top_logits=1)


@pytest.mark.parametrize("engine", ["transformers", "onnxruntime-genai", "openvino"])
def test_a_request_as_long_as_the_context_is_read_twice_and_answered(tagger, tiny, tmp_path, engine):
    needs(engine)
    folder = tagger
    if engine != "transformers":
        convert(tagger, folder := tmp_path / "onnx", CompressSettings(precision="fp32"), scratch=tmp_path / "scratch")
    loaded = load_engine(engine, folder, threads=1)
    context = loaded.info().context_tokens
    text = "gone "
    while len(tiny.prompt(text + "gone ")) < context:
        text += "gone "
    assert answers(loaded, [tiny.prompt(text)])[0][-1].finish in ("stop", "length")
    with pytest.raises(BadInput, match="does not fit"):
        answers(loaded, [tiny.prompt(text + "gone " * 3)])


def test_a_limit_cuts_the_answer(tagger, tiny):
    engine = load_engine("transformers", tagger, threads=1)
    tokens = list(engine.generate([tiny.prompt("Where is order 4711?")], Sampling(max_tokens=3)))
    assert [token.finish for token in tokens] == [None, None, "length"]
