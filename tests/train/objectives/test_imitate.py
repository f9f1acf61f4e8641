"""Each term trains a tiny student of a tiny teacher: its loss falls, above still layers and resumed too."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from slmops.errors import BadInput
from slmops.models.carve import keep_tokens
from slmops.models.source import load_model, save_model
from slmops.progress import Silent
from slmops.recipe import objective as recipe
from slmops.recipe.objective import Objective
from slmops.recipe.training import Optimisation, TrainSettings
from slmops.train.checkpoint import last_checkpoint
from slmops.train.collate import collate
from slmops.train.examples import Example, SoftTargets
from slmops.train.objectives.base import View
from slmops.train.objectives.imitate import Imitation
from slmops.train.objectives.observe import TeacherModel, every_nth
from slmops.train.objectives.recall import Recall
from slmops.train.trained import Trained
from slmops.train.trainer import train
from tests.train.histories import learned

SETTINGS = Optimisation(epochs=8, learning_rate=1e-2, batch_tokens=64, precision="fp32", checkpoint_seconds=1e6)
TOKENS, TOP = 40, 6
KEPT = [i for i in range(TOKENS) if i % 10]
"""The teacher's tokens that the student has."""


@dataclass(frozen=True)
class Pair:
    """A random teacher and a random student with half of its layers and most of its tokens."""

    student: Path
    teacher: TeacherModel
    examples: list[Example]


def model(folder: Path, *, seed: int, layers: int, width: int = 16, heads: int = 2) -> Path:
    torch.manual_seed(seed)
    made = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=TOKENS,
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=1,
            max_position_embeddings=64,
            # Distributions worth learning: a random model of the common size says nearly the same to everything.
            initializer_range=0.4,
        )
    )
    made.eval().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("pair")
    teacher = model(folder / "teacher", seed=1, layers=4)
    small = load_model(model(folder / "whole", seed=2, layers=2))
    keep_tokens(small, KEPT)
    save_model(small, folder / "student")
    rng = np.random.default_rng(0)
    rows = [(rng.integers(0, len(KEPT), 4 + i % 3), rng.integers(0, len(KEPT), 3)) for i in range(16)]
    made = [taught(tuple(prompt.tolist()), tuple(answer.tolist()), teacher) for prompt, answer in rows]
    return Pair(folder / "student", TeacherModel(teacher, KEPT, [1, 3]), made)


def taught(prompt: tuple[int, ...], answer: tuple[int, ...], teacher: Path) -> Example:
    """An answer in the student's tokens with what the teacher gave its top tokens."""
    ids = torch.tensor([[KEPT[i] for i in (*prompt, *answer)]])
    with torch.no_grad():
        log_probs = torch.log_softmax(load_model(teacher)(ids).logits[0, len(prompt) - 1 : -1], -1)
    values, top = log_probs.topk(TOP)
    known = {old: new for new, old in enumerate(KEPT)}
    mapped = np.array([[known.get(int(i), -1) for i in row] for row in top])
    return Example(prompt, answer, SoftTargets(mapped, values.numpy()))


def trained(pair: Pair, objective: Objective, work: Path, **changes: object) -> Trained:
    settings = SETTINGS.model_copy(update=changes)
    return train(pair.student, pair.examples, settings, work=work, seed=1, objective=objective, teacher=pair.teacher)


TERMS = [
    recipe.TextTerm(),
    *(kind(logits=logits) for kind in (recipe.ForwardKl, recipe.ReverseKl, recipe.Jsd, recipe.SkewedKl,
                                       recipe.SkewedReverseKl) for logits in ("stored", "online")),
    recipe.HiddenTerm(),
    recipe.HiddenTerm(distance="cosine"),
    recipe.AttentionTerm(),
    recipe.AttentionTerm(distance="mse", heads="mean"),
]  # fmt: skip


def called(term: recipe.Term) -> str:
    return f"{term.kind}-{getattr(term, 'logits', getattr(term, 'distance', ''))}"


class Counting(Silent):
    """Progress that keeps what was begun."""

    def __init__(self) -> None:
        self.titles: list[str] = []

    def task(self, title: str, total: float | None, unit: str):
        self.titles.append(title)
        return super().task(title, total, unit)


@pytest.mark.parametrize(
    ("term", "kept"),
    [(recipe.ForwardKl(logits="online"), True), (recipe.HiddenTerm(), True), (recipe.AttentionTerm(), False)],
    ids=["online", "hidden", "attention"],
)
def test_a_teacher_that_reads_once_teaches_the_same(pair, tmp_path, term, kept):
    def run(name: str, progress: Silent, **how: bool) -> Trained:
        where = {"work": tmp_path / name, "seed": 1, "progress": progress}
        moved = SETTINGS.model_copy(update={"learning_rate": 1e-3})  # last bits do not grow
        return train(pair.student, pair.examples, moved, objective=[term], teacher=pair.teacher, **where, **how)

    every, once = Counting(), Counting()
    always, read = run("always", every), run("once", once, teacher_reads_once=True)
    losses = ([entry[term.kind] for entry in found.history] for found in (always, read))
    assert next(losses) == pytest.approx(next(losses), rel=1e-3)
    assert [title for title in once.titles if title not in every.titles] == ["run the uncut model"] * kept


def test_what_is_known_of_two_examples_of_the_same_tokens_is_what_the_longer_answer_needs():
    recall, states = Recall(), torch.arange(12.0).view(6, 2)
    short, long = Example((1, 2, 3, 4), (5, 6)), Example((1, 2), (3, 4, 5, 6))
    for example in (short, long, short):
        recall.keep(example, states[len(example.prompt) - 1 : -1], {})
    batch = collate([long, short], pad=0)
    found = recall.find(batch)
    assert found is not None
    assert torch.equal(found[0], torch.cat([states[1:5], states[3:5]]))
    assert recall.find(collate([Example((1,), (2,))], pad=0)) is None


def test_spans_cannot_be_had_of_every_nth_position(pair):
    with pytest.raises(BadInput, match="need every token"):
        Imitation([recipe.SpanTerm()], load_model(pair.student), every=2)


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 9)), min_size=1, max_size=5), st.integers(1, 6))
def test_every_nth_position_of_a_batch_is_one_of_its_own(sizes, n):
    made = iter(range(3, 10**6))
    rows = [Example(tuple(islice(made, prompt)), tuple(islice(made, answer))) for prompt, answer in sizes]
    batch = collate(rows, pad=0)
    thin = every_nth(batch, n)
    count, kept = len(batch["target"]), thin["target"].tolist()
    assert kept == batch["target"].tolist()[batch["target"].tolist().index(kept[0]) :: n]
    assert count // n <= len(kept) <= -(-count // n)
    # A position predicts the token behind it.
    assert torch.equal(batch["input_ids"][thin["predicts"].roll(1, dims=1)], thin["target"])


def first_and_last(found: Trained, name: str) -> tuple[float, float]:
    return found.history[0][name], found.history[-1][name]


@pytest.mark.parametrize("term", TERMS, ids=called)
def test_each_term_falls_and_leaves_a_plain_model(pair, tmp_path, term):
    found = trained(pair, [term], tmp_path)
    first, last = first_and_last(found, term.kind)
    assert last < 0.9 * first
    assert found.model.state_dict().keys() == load_model(pair.student).state_dict().keys()
    assert found.model.config._attn_implementation == load_model(pair.student).config._attn_implementation


@pytest.mark.parametrize(
    "term",
    [
        recipe.ForwardKl(logits="online"),
        recipe.HiddenTerm(),
        recipe.HiddenTerm(student_layers=[0, 1], teacher_layers=[1, 3]),
        recipe.AttentionTerm(),
    ],
    ids=lambda term: f"{term.kind}-{getattr(term, 'student_layers', None)}",
)
def test_above_still_layers_it_is_the_same_training(pair, tmp_path, term, monkeypatch):
    slow = {"freeze_layers": 1, "epochs": 3, "learning_rate": 1e-3}
    kept = trained(pair, [term], tmp_path / "kept", **slow)
    monkeypatch.setattr("slmops.train.trunk.MAX_STATES_BYTES", 0)
    run = trained(pair, [term], tmp_path / "run", **slow)
    before = load_model(pair.student).state_dict()
    for name, value in kept.model.state_dict().items():
        if name.startswith("model.layers.0."):
            assert torch.equal(value, before[name]), name
        # As a whole: where a gradient is next to nothing, Adam's step has the sign of its rounding.
        moved, apart = (value - before[name]).norm(), (value - run.model.state_dict()[name]).norm()
        assert apart <= 0.1 * moved, name
    assert not torch.equal(
        kept.model.model.layers[1].self_attn.q_proj.weight, before["model.layers.1.self_attn.q_proj.weight"]
    )


def test_the_teacher_reads_in_its_own_tokens_what_the_student_reads(pair):
    student = load_model(pair.student)
    imitation = Imitation([recipe.ForwardKl(logits="online")], student, teacher=pair.teacher)
    view = imitation.view(student, collate(pair.examples[:3], pad=0))
    example = pair.examples[0]
    ids = torch.tensor([[KEPT[i] for i in (*example.prompt, *example.answer)]])
    with torch.no_grad():
        expected = load_model(pair.teacher.folder)(ids).logits[0, len(example.prompt) - 1 : -1]
    assert view.teacher_logits is not None
    torch.testing.assert_close(view.teacher_logits[: len(example.answer)], expected, rtol=1e-4, atol=1e-4)
    assert view.kept is not None
    assert view.kept.tolist() == KEPT
    assert not view.teacher_logits.requires_grad


def test_layers_are_shown_at_answer_positions(pair):
    student = load_model(pair.student)
    terms = [recipe.HiddenTerm(student_layers=[1]), recipe.AttentionTerm()]
    imitation = Imitation(terms, student, teacher=pair.teacher)
    imitation.attach(student)
    example = pair.examples[0]
    view = imitation.view(student, collate(pair.examples[:3], pad=0))
    imitation.detach(student)
    ids = torch.tensor([[KEPT[i] for i in (*example.prompt, *example.answer)]])
    whole = load_model(pair.teacher.folder)
    whole.set_attn_implementation("eager")
    with torch.no_grad():
        told = whole(ids, output_hidden_states=True, output_attentions=True)
    at = slice(len(example.prompt) - 1, ids.shape[1] - 1)
    assert view.hidden is not None
    assert view.attention is not None
    assert (list(view.hidden.teacher), list(view.hidden.student)) == ([3], [1])
    # The last of transformers' hidden states is behind the final norm, ours are before it.
    normed = whole.model.norm(view.hidden.teacher[3][: len(example.answer)])
    torch.testing.assert_close(normed, told.hidden_states[4][0, at], rtol=1e-3, atol=1e-4)
    maps = view.attention.teacher[3][: len(example.answer)]
    expected = told.attentions[3][0].transpose(0, 1)[at]
    torch.testing.assert_close(maps[..., : expected.shape[-1]], expected, rtol=1e-3, atol=1e-4)
    assert float(maps[..., expected.shape[-1] :].abs().sum()) == 0


MIXED = [
    recipe.ForwardKl(logits="online", temperature=2.0),
    recipe.ReverseKl(weight=0.5),
    recipe.HiddenTerm(weight=0.1),
    recipe.TextTerm(weight=0.3),
    recipe.TextTerm(weight=0.0),
]


def test_a_mixture_tells_every_term(pair, tmp_path):
    found = trained(pair, MIXED, tmp_path)
    assert set(learned(found.history)[0]) - {"step", "tokens"} == {
        "forward_kl",
        "reverse_kl",
        "hidden",
        "text",
        "text_2",
    }
    assert all(entry["text"] == entry["text_2"] for entry in found.history)


def test_in_bfloat16_what_is_compared_is_compared_in_float32(pair, tmp_path):
    terms = [recipe.ForwardKl(logits="online"), recipe.HiddenTerm(distance="cosine"), recipe.AttentionTerm()]
    found = trained(pair, terms, tmp_path, precision="bf16", freeze_layers=1)
    for term in terms:
        first, last = first_and_last(found, term.kind)
        assert last < first
    assert {value.dtype for value in found.model.state_dict().values()} == {torch.float32}


def test_the_default_is_forward_kl_with_three_tenths_of_text(pair):
    student = load_model(pair.student)
    terms = Imitation(TrainSettings().objective, student).terms(student, collate(pair.examples, pad=0))
    assert {name: factor for name, (factor, _) in terms.items()} == {"forward_kl": 1.0, "text": 0.3}


def test_a_narrow_student_learns_its_projection_and_loses_it(pair, tmp_path):
    narrow = load_model(model(tmp_path / "whole", seed=3, layers=2, width=8))
    keep_tokens(narrow, KEPT)
    save_model(narrow, tmp_path / "narrow")
    small = Pair(tmp_path / "narrow", pair.teacher, pair.examples)
    found = trained(small, [recipe.HiddenTerm()], tmp_path / "work")
    first, last = first_and_last(found, "hidden")
    assert last < 0.9 * first
    assert found.model.state_dict().keys() == narrow.state_dict().keys()


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from test_imitate import SETTINGS, resumable
from slmops.progress import Silent

class Deadly:
    def __init__(self): self.steps = 0
    def __enter__(self): return self
    def __exit__(self, *_): pass
    def advance(self, amount=1, **figures):
        self.steps += 1
        if self.steps == 13: os.kill(os.getpid(), signal.SIGKILL)

class Watched(Silent):
    def task(self, title, total, unit): return Deadly()

resumable(Path(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]), Watched())
"""


def resumable(student: Path, teacher: Path, work: Path, progress: object = None) -> Trained:
    """A normalised mixture with a learned projection: all that an objective can have of state."""
    rng = np.random.default_rng(0)
    rows = [(tuple(rng.integers(0, 20, 5).tolist()), tuple(rng.integers(0, 20, 3).tolist())) for _ in range(24)]
    return train(
        student,
        [Example(*row) for row in rows],
        SETTINGS.model_copy(update={"checkpoint_seconds": 1e-6}),
        work=work,
        seed=1,
        objective=[recipe.TextTerm(), recipe.ForwardKl(logits="online"), recipe.HiddenTerm(weight=0.5)],
        normalise=True,
        teacher=TeacherModel(teacher),
        progress=progress,
    )


def test_killed_and_resumed_is_the_same_to_the_bit(tmp_path):
    teacher = model(tmp_path / "teacher", seed=1, layers=3)
    student = model(tmp_path / "student", seed=2, layers=2, width=8)
    unbroken = resumable(student, teacher, tmp_path / "unbroken")
    here, work = str(Path(__file__).parent), tmp_path / "killed"
    command = [sys.executable, "-c", KILLED, here, str(student), str(teacher), str(work)]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert last_checkpoint(work) is not None
    resumed = resumable(student, teacher, work)
    for name, value in unbroken.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    assert learned(resumed.history) == learned(unbroken.history)


def test_what_cannot_be_trained_is_refused(pair, tmp_path):
    student = load_model(pair.student)
    with pytest.raises(BadInput, match="hidden needs the teacher's model"):
        Imitation([recipe.HiddenTerm()], student)
    plain = [Example(row.prompt, row.answer) for row in pair.examples]
    with pytest.raises(BadInput, match="needs the teacher's stored probabilities"):
        train(pair.student, plain, SETTINGS, work=tmp_path, seed=1, objective=[recipe.ForwardKl()])
    with pytest.raises(BadInput, match=r"hidden\.teacher_layers: the teacher has no layer 4"):
        Imitation([recipe.HiddenTerm(student_layers=[0], teacher_layers=[4])], student, teacher=pair.teacher)
    large = load_model(pair.teacher.folder)
    with pytest.raises(BadInput, match="the student has 40 tokens, the teacher 36, and no map") as error:
        Imitation([recipe.ForwardKl(logits="online")], large, teacher=TeacherModel(pair.student))
    assert "text" in (error.value.hint or "")


class SeesAllLayers:
    """A custom term, by hand."""

    needs = frozenset({"hidden", "attention"})

    def loss(self, view: View) -> torch.Tensor:
        assert view.hidden is not None
        assert view.attention is not None
        assert [list(layers) for layers in (view.hidden.student, view.hidden.teacher)] == [[0, 1], [0, 1, 2, 3]]
        assert [list(layers) for layers in (view.attention.student, view.attention.teacher)] == [[0, 1], [0, 1, 2, 3]]
        return view.attention.student[1].square().sum(-1).mean()


def test_a_custom_term_that_needs_layers_is_shown_all(pair, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "house_of_layers", sys.modules[__name__])
    monkeypatch.setattr(SeesAllLayers, "__module__", "house_of_layers")
    custom = recipe.CustomTerm(kind="custom", custom="house_of_layers:SeesAllLayers")
    found = trained(pair, [custom], tmp_path, freeze_layers=1)
    first, last = first_and_last(found, "SeesAllLayers")
    assert last < first
