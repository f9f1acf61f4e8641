"""A classification by a head: one forward pass gives every label's probability, and no other text has any."""

from __future__ import annotations

import numpy as np
import pytest

from slmops.bundle.labels import label_probabilities
from slmops.compress.convert import convert
from slmops.engines import Sampling, load_engine
from slmops.engines.reading import Reader
from slmops.errors import BadInput
from slmops.models.source import save_model
from slmops.recipe.compress import CompressSettings
from slmops.recipe.training import Optimisation
from slmops.tasks import Classification, Nli
from slmops.tasks.marking import Marking
from slmops.teach.answers import Answer
from slmops.teach.certainty import member_certainties
from slmops.train.tagged import Answered, check_rows, new_head, tagged_examples
from slmops.train.trainer import train

TASK = Classification(("order late", "other", "refund"), None, 8)
SETTINGS = Optimisation(epochs=12, learning_rate=3e-3, batch_tokens=512, precision="fp32", checkpoint_seconds=1e6)
BEGINS = {"Where is order": "order late", "Money back for": "refund", "Hello, this is": "other"}


def rows(numbers: range) -> list[Answered]:
    return [
        Answered(f"{n}{i}", f"{begin} {n}?", label) for n in numbers for i, (begin, label) in enumerate(BEGINS.items())
    ]


def test_only_the_label_is_learned(tiny):
    (example,), names = tagged_examples([Answered("1", "my order", "refund")], TASK, tiny.tokenizer)
    assert names == ["1"]
    assert example.certainty == (*[0.0] * (len(example.answer) - 1), 1.0)
    assert example.labels == (*[0] * (len(example.answer) - 1), 1 + TASK.labels.index("refund"))
    (taught,), _ = tagged_examples([Answered("1", "my order", "refund", {"label": 0.75})], TASK, tiny.tokenizer)
    assert taught.certainty[-1] == 0.75
    assert check_rows([{"id": "1", "input": "my order", "output": "other"}], TASK) == 0


def test_a_teacher_is_as_sure_of_a_label_as_of_all_its_tokens(tiny):
    tokens = np.array(tiny.tokenizer.encode("refund"), dtype=np.int32)
    halves = np.full((len(tokens), 1), np.log(0.5), dtype=np.float32)
    answer = Answer("1", "q", "refund", tokens, tokens[:, None], halves)
    assert member_certainties(answer, tiny.tokenizer) == {"label": pytest.approx(0.5 ** len(tokens))}


@pytest.fixture(scope="module")
def labeller(tiny, tmp_path_factory):
    """A folder with a model that was trained to label, in PyTorch and as it ships."""
    folder = tmp_path_factory.mktemp("labeller")
    examples, _ = tagged_examples(rows(range(30)), TASK, tiny.tokenizer)
    head = new_head(TASK, tiny.tokenizer, 64)
    trained = train(tiny.folder, examples, SETTINGS, work=folder / "work", seed=1, head=head)
    save_model(trained.model, folder / "hf", tokenizer_from=tiny.folder)
    convert(folder / "hf", folder / "onnx", CompressSettings(precision="fp32"), scratch=folder / "scratch")
    return folder


def test_it_labels_texts_that_no_row_had_and_ships(labeller, tiny):
    unseen = rows(range(40, 50))
    texts = [row.text for row in unseen]
    found = {}
    for engine, name in (("transformers", "hf"), ("onnxruntime-genai", "onnx")):
        loaded = load_engine(engine, labeller / name, threads=1)
        found[name] = label_probabilities(loaded, tiny.tokenizer, TASK, texts)
        written: list[list[int]] = [[] for _ in texts]
        for token in loaded.generate([tiny.prompt(text) for text in texts], Sampling(max_tokens=8)):
            written[token.request].append(token.id)
        answers = [TASK.parse(tiny.tokenizer.decode(ids)) for ids in written]
        assert answers == [max(one, key=one.get) for one in found[name]]
    assert sum(answer == row.answer for answer, row in zip(answers, unseen, strict=True)) >= 27
    for ours, theirs in zip(found["hf"], found["onnx"], strict=True):
        assert sum(ours.values()) == pytest.approx(1)
        assert theirs == pytest.approx(ours, abs=1e-4)
    ((place,),) = load_engine("transformers", labeller / "hf", threads=1).labels([tiny.prompt(texts[0])])
    assert sorted(place[0].tolist()) == [1, 2, 3], "one place is read, where all labels are weighed"


def test_it_weighs_the_labels_of_its_task_alone(labeller, tiny):
    engine = load_engine("transformers", labeller / "hf", threads=1)
    prompts, encode = [tiny.prompt("Where is order 7?")], tiny.tokenizer.encode
    both = engine.score_choices(prompts, [encode("refund"), encode("order late")])
    assert both.shape == (1, 2)
    assert both[0, 1] > both[0, 0]
    with pytest.raises(BadInput, match="'weather' is not one of the labels"):
        engine.score_choices(prompts, [encode("refund"), encode("weather")])
    with pytest.raises(BadInput, match="cannot score texts"):
        engine.score(prompts, [encode("refund")])


def test_two_texts_of_an_inference_are_one_message(tiny):
    task = Nli(("entailment", "neutral", "contradiction"), "Does it follow?", 8)
    reader = Reader(task.describe(), tiny.tokenizer)
    text = "Premise: It rains.\nHypothesis: It is wet."
    assert reader.reading(tiny.tokenizer.prompt(task.render(text))).message == text
    assert reader.marking == Marking.of_labels(task.labels)
    assert reader.choices == task.labels
