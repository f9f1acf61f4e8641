"""Terms that compare rows: formulas against plain sums, gradients, invariances, and what a training does with them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slmops.engines.transformers import TransformersBody
from slmops.errors import BadInput
from slmops.models.source import load_model
from slmops.recipe.objective import Contrastive, Objective, SupervisedContrastive, TextTerm
from slmops.recipe.training import Optimisation
from slmops.train.collate import collate
from slmops.train.contrast import comparable, compared_share
from slmops.train.examples import Example, schedule
from slmops.train.objectives.base import STATES, VECTORS
from slmops.train.objectives.contrastive import info_nce, supervised_contrastive
from slmops.train.objectives.observe import answer_states, row_states, row_vectors
from slmops.train.tagged import Answered, new_head, tagged_examples
from slmops.train.trainer import train
from tests.tiny_task import TASK

STATES_OF = torch.randn(7, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
LABELS = torch.tensor([0, 1, 0, 2, 1, 0, -1])


def plainly(states: torch.Tensor, labels: list[int], temperature: float) -> float:
    """Equation 2 of Khosla et al., term by term."""
    z = [[float(x) / math.hypot(*row.tolist()) for x in row] for row in states]
    known = [i for i, label in enumerate(labels) if label >= 0]

    def alike(i: int, j: int) -> float:
        return math.exp(sum(a * b for a, b in zip(z[i], z[j], strict=True)) / temperature)

    sums = []
    for i in known:
        positives = [p for p in known if p != i and labels[p] == labels[i]]
        if positives:
            below = sum(alike(i, a) for a in known if a != i)
            sums.append(-sum(math.log(alike(i, p) / below) for p in positives) / len(positives))
    return sum(sums) / len(sums)


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_rows_of_a_label_are_compared_by_the_paper_s_sum(temperature: float) -> None:
    value = float(supervised_contrastive(STATES_OF, LABELS, temperature))
    assert value == pytest.approx(plainly(STATES_OF, LABELS.tolist(), temperature))


def test_the_gradients_are_those_of_the_formulas() -> None:
    states = STATES_OF.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda given: supervised_contrastive(given, LABELS, 0.5), (states,))
    of = torch.tensor([0, 1, 0])
    assert torch.autograd.gradcheck(
        lambda given: info_nce(given[:3], given[3:5], of, 0.5), (STATES_OF.clone().requires_grad_(),)
    )


@given(order=st.permutations(range(7)), scale=st.floats(0.1, 100), turn=st.integers(0, 2**16))
def test_order_scale_rotation_and_names_of_labels_are_all_one(order: list[int], scale: float, turn: int) -> None:
    rotation, _ = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(turn), dtype=torch.float64))
    other = torch.tensor([4, 0, 9])
    renamed = torch.where(LABELS < 0, LABELS, other[LABELS.clamp(min=0)])
    value = supervised_contrastive((scale * STATES_OF @ rotation)[order], renamed[order], 0.3)
    torch.testing.assert_close(value, supervised_contrastive(STATES_OF, LABELS, 0.3))


def test_rows_that_are_alone_with_their_labels_have_a_gradient_of_nothing() -> None:
    for labels in ([0, 1, 2, -1, -1, -1, -1], [-1] * 7):
        states = STATES_OF.clone().requires_grad_()
        loss = supervised_contrastive(states, torch.tensor(labels), 0.1)
        loss.backward()
        assert float(loss.detach()) == 0.0
        assert states.grad is not None
        assert not states.grad.any()


def test_a_text_is_compared_with_each_answer_of_the_batch_once() -> None:
    texts, answers = torch.eye(3), torch.eye(3)[:2]
    of = [0, 1, 0]
    expected = [
        -math.log(math.exp(2 * float(texts[i] @ answers[a])) / sum(math.exp(2 * float(texts[i] @ b)) for b in answers))
        for i, a in enumerate(of)
    ]
    assert float(info_nce(texts, answers, torch.tensor(of), 0.5)) == pytest.approx(sum(expected) / 3)


lengths_and_labels = st.lists(
    st.tuples(st.integers(1, 40), st.one_of(st.none(), st.sampled_from("abcde"))), min_size=1, max_size=60
)


@given(rows=lengths_and_labels, seed=st.integers(0, 9))
def test_no_row_is_without_another_of_its_label_where_there_is_one(rows, seed) -> None:
    lengths, labels = [length for length, _ in rows], [label for _, label in rows]
    plan = schedule(lengths, epochs=1, batch_tokens=100, seed=seed, labels=labels)
    assert sorted(i for batch in plan for i in batch) == list(range(len(rows)))
    for batch in plan:
        assert len(batch) <= 3 or len(batch) * max(lengths[i] for i in batch) <= 100
        for i in batch:
            others = [labels[j] for j in batch if j != i]
            assert labels[i] is None or labels[i] in others or labels.count(labels[i]) == 1


ASKED = ("{} costs how much?", "How much is {}", "the price of {}", "price for {} please", "what must I pay for {}")
LATE = ("{} is late", "Where is {}", "I still wait for {}", "{} never came", "when will {} be here?")
LOST = ("{} is broken", "I found {} in pieces", "{} does not work", "a crack in {}", "{} fell apart")
THINGS = ("the lamp", "my book", "a chair", "this table", "our clock", "the coat", "his bike", "her phone")


def rows(things: tuple[str, ...]) -> list[tuple[str, str]]:
    kinds = {"price": ASKED, "late": LATE, "broken": LOST}
    return [(form.format(thing), label) for label, forms in kinds.items() for form in forms for thing in things]


def examples(tiny, given: list[tuple[str, str]]) -> list[Example]:
    objective: Objective = [SupervisedContrastive(), Contrastive()]
    encode = tiny.tokenizer.encode
    made = [Example(tuple(tiny.prompt(text)), (*encode(label), *tiny.tokenizer.end_ids)) for text, label in given]
    return comparable(made, [label for _, label in given], given, tiny.tokenizer, objective)


def near(vectors: torch.Tensor, labels: list[str], known: torch.Tensor, of: list[str]) -> float:
    """Share of the vectors whose nearest known one has their label."""
    unit, there = (torch.nn.functional.normalize(each, dim=-1) for each in (vectors, known))
    nearest = (unit @ there.T).argmax(-1).tolist()
    return sum(of[at] == label for at, label in zip(nearest, labels, strict=True)) / len(labels)


@torch.inference_mode()
def states(model, made: list[Example]) -> torch.Tensor:
    batch = collate(made, pad=0)
    return row_states(model, answer_states(model, batch), batch)


SETTINGS = Optimisation(epochs=4, learning_rate=2e-3, batch_tokens=1024, precision="fp32", checkpoint_seconds=1e6)


def test_training_brings_unseen_rows_nearer_to_rows_of_their_label(tiny, tmp_path) -> None:
    seen, unseen = rows(THINGS[:5]), [(text.lower() + " now", label) for text, label in rows(THINGS[5:])]
    made, held_out = examples(tiny, seen), examples(tiny, unseen)
    before = load_model(tiny.folder)
    trained = train(tiny.folder, made, SETTINGS, objective=[SupervisedContrastive()], work=tmp_path, seed=1)

    def retrieval(model) -> float:
        return near(states(model, held_out), [b for _, b in unseen], states(model, made), [b for _, b in seen])

    assert retrieval(trained.model) > retrieval(before) + 0.1
    assert float(trained.figures["compared_share"]) > 0.9


def test_training_brings_texts_nearer_to_their_answers_as_they_are_served(tiny, tmp_path) -> None:
    seen, unseen = rows(THINGS[:5]), rows(THINGS[5:])
    trained = train(tiny.folder, examples(tiny, seen), SETTINGS, objective=[Contrastive()], work=tmp_path, seed=1)
    assert 0 < float(trained.figures["compared_share"]) <= 1

    def retrieval(model) -> float:
        with torch.inference_mode():
            vectors = row_vectors(model, collate(examples(tiny, unseen), pad=0))
        return float(((vectors.inputs @ vectors.answers.T).argmax(-1) == vectors.of).float().mean())

    assert retrieval(trained.model) > retrieval(load_model(tiny.folder)) + 0.2


def test_the_vectors_are_those_of_the_server(tiny) -> None:
    given = [("Where is the lamp", "late"), ("a crack", "broken"), ("my book is late", "late")]
    body = TransformersBody.load(tiny.folder, threads=1)
    sequences = [tiny.tokenizer.encode_plain(text)[0] for text, _ in given]
    served = [one[: len(ids)].mean(0) for one, ids in zip(body.states(sequences), sequences, strict=True)]
    with torch.inference_mode():
        vectors = row_vectors(load_model(tiny.folder), collate(examples(tiny, given), pad=0))
    expected = np.stack([one / np.linalg.norm(one) for one in served])
    np.testing.assert_allclose(vectors.inputs.numpy(), expected, atol=1e-5)
    assert vectors.of.tolist() == [0, 1, 0]
    assert len(vectors.answers) == 2


def test_a_model_that_labels_has_the_mean_of_what_it_labels(tiny, tmp_path) -> None:
    given = [
        Answered(str(i), text, {"intent": "refund" if i % 2 else "other"})
        for i, (text, _) in enumerate(rows(THINGS[:2]))
    ]
    made, _ = tagged_examples(given, TASK, tiny.tokenizer)
    objective = [TextTerm(), SupervisedContrastive(weight=0.5)]
    labels = [row.answer["intent"] for row in given]
    made = comparable(made, labels, [], tiny.tokenizer, objective)
    settings, head = SETTINGS.model_copy(update={"epochs": 6}), new_head(TASK, tiny.tokenizer, 64)
    trained = train(tiny.folder, made, settings, objective=objective, work=tmp_path, seed=1, head=head)
    assert trained.history[-1]["supervised_contrastive"] < trained.history[0]["supervised_contrastive"]
    batch = collate(made[:2], pad=0)
    with torch.inference_mode():
        at_answers = answer_states(trained.model, batch)
        first = int(batch["predicts"][0].sum())
        torch.testing.assert_close(row_states(trained.model, at_answers, batch)[0], at_answers[:first].mean(0))


def test_still_layers_are_run_for_texts_too(tiny, tmp_path) -> None:
    settings = SETTINGS.model_copy(update={"epochs": 1, "freeze_layers": 1})
    made = examples(tiny, rows(THINGS[:2]))
    objective = [TextTerm(), SupervisedContrastive(), Contrastive()]
    trained = train(tiny.folder, made, settings, objective=objective, work=tmp_path, seed=1)
    assert {"text", "supervised_contrastive", "contrastive"} <= trained.history[-1].keys()


def test_batches_that_leave_nothing_to_compare_are_refused(tiny, tmp_path) -> None:
    made = examples(tiny, rows(THINGS[:2]))
    short = SETTINGS.model_copy(update={"batch_tokens": 32})
    with pytest.raises(BadInput, match="compares the rows of a batch"):
        train(tiny.folder, made, short, objective=[SupervisedContrastive()], work=tmp_path, seed=1)


def test_a_batch_in_which_no_answer_has_a_label_is_learned_by_its_words(tiny, tmp_path) -> None:
    made = examples(tiny, rows(THINGS[:2]))
    unlabelled = [replace(example, label=None, answer=example.answer * 4) for example in made]
    objective = [TextTerm(), SupervisedContrastive()]
    settings = SETTINGS.model_copy(update={"epochs": 1, "batch_tokens": 200})
    trained = train(tiny.folder, [*made, *unlabelled], settings, objective=objective, work=tmp_path, seed=1)
    assert 0 < float(trained.figures["compared_share"]) < 0.6


def test_what_share_of_the_rows_is_compared_is_told() -> None:
    made = [Example((1,), (2,), label=label, texts=((1,), (3 if label == "a" else 4,))) for label in "aabbc"]
    plan = [[0, 1, 4], [2, 3]]
    assert compared_share(frozenset({STATES}), made, plan) == 2 / 5
    assert compared_share(frozenset({VECTORS}), made, plan) == 3 / 5
    assert compared_share(frozenset(), made, plan) is None
