"""Answers that the student writes itself: from its own distribution, the same when resumed, and worth learning from."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from scipy.stats import chisquare
from transformers import LlamaConfig, LlamaForCausalLM

from slmops.errors import BadInput
from slmops.models.carve import keep_tokens
from slmops.models.rounding import Grid
from slmops.models.source import load_model, save_model
from slmops.recipe.objective import AttentionTerm, ForwardKl, HiddenTerm, Jsd, Objective, ReverseKl, TextTerm
from slmops.recipe.training import Optimisation, Rounding
from slmops.train import trainer
from slmops.train.checkpoint import last_checkpoint
from slmops.train.collate import collate
from slmops.train.examples import Example, certain
from slmops.train.objectives.imitate import Imitation
from slmops.train.objectives.make import check_on_policy
from slmops.train.objectives.observe import TeacherModel
from slmops.train.on_policy import OwnAnswers, Writer, draw, sample
from slmops.train.processes import Processes
from slmops.train.trained import Trained
from slmops.train.trainer import train
from tests.train.histories import learned

SETTINGS = Optimisation(epochs=4, learning_rate=3e-3, batch_tokens=64, precision="fp32", checkpoint_seconds=1e6)
HALF = OwnAnswers(fraction=0.5, temperature=1.0, max_tokens=5, end_ids=frozenset({2, 3}))
ALWAYS = replace(HALF, fraction=1.0)
ONLINE = ReverseKl(logits="online")
MIXED: Objective = [ONLINE, ForwardKl(weight=0.5), TextTerm(weight=0.3), HiddenTerm(weight=0.1)]
TOKENS = 30
KEPT = [i for i in range(TOKENS) if i % 10 != 9]
"""The teacher's tokens that the student has."""


def model(folder: Path, *, seed: int, layers: int, tokens: int = TOKENS) -> Path:
    torch.manual_seed(seed)
    made = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=tokens,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=layers,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=32,
            # Distributions worth learning: a random model of the common size says nearly the same to everything.
            initializer_range=0.4,
        )
    )
    made.eval().save_pretrained(folder)
    return folder


@dataclass(frozen=True)
class Pair:
    """A random teacher, and a random student with half of its layers and most of its tokens."""

    student: Path
    teacher: TeacherModel


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("pair")
    small = load_model(model(folder / "whole", seed=2, layers=2))
    keep_tokens(small, KEPT)
    save_model(small, folder / "student")
    return Pair(folder / "student", TeacherModel(model(folder / "teacher", seed=1, layers=4), KEPT, [1, 3]))


def rows(seed: int = 0) -> list[Example]:
    """Prompts that are always the same, and answers of the same lengths."""
    prompts, answers = np.random.default_rng(0), np.random.default_rng(seed)
    made = []
    for i in range(20):
        prompt = tuple(prompts.integers(0, len(KEPT), 3 + i % 4).tolist())
        answer = tuple(answers.integers(0, len(KEPT), 2 + i % 3).tolist())
        made.append(Example(prompt, answer, certain(answer, 3)))
    return made


def trained(
    pair: Pair, work: Path, objective: Objective, how: OwnAnswers | None, seed: int = 0, **settings: Any
) -> Trained:
    return train(
        pair.student,
        rows(seed),
        SETTINGS.model_copy(update=settings),
        work=work,
        seed=1,
        objective=objective,
        on_policy=how,
        teacher=pair.teacher,
    )


def assert_same(one: Trained, other: Trained) -> None:
    """To the bit, but for the time that it took."""
    for name, value in one.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[name]), name
    assert learned(one.history) == learned(other.history)


# Drawing


@given(st.lists(st.floats(-6, 6, width=32), min_size=2, max_size=6), st.sampled_from([0.5, 1.0, 3.0]))
def test_tokens_are_drawn_by_their_probability(logits, temperature):
    count, given = 4000, torch.tensor(logits)
    # Chances that are spread evenly find each token as often as it is likely, to within one.
    drawn = draw(given.expand(count, -1), (np.arange(count) + 0.5) / count, temperature)
    wanted = count * torch.softmax(given / temperature, -1)
    assert (torch.bincount(torch.tensor(drawn), minlength=len(logits)) - wanted).abs().max() <= 1.01


def test_the_coldest_draw_is_the_most_likely_token_and_an_impossible_one_is_never_drawn():
    logits = torch.tensor([[0.1, 0.3, 0.2], [9.0, -1.0, 8.9], [-torch.inf, 0.0, -torch.inf]])
    assert draw(logits, np.array([0.0, 0.999, 0.5]), 1e-30) == [1, 0, 1]
    for chance in (0.0, 0.5, 1 - 2**-53):
        assert draw(logits[2:], np.array([chance]), 1.0) == [1]


def test_answers_come_from_the_students_distribution(tmp_path):
    """Pairs of tokens against the probabilities that the model gives them without a cache."""
    tokens, count = 6, 4000
    student = load_model(model(tmp_path, seed=5, layers=1, tokens=tokens))
    how = OwnAnswers(1.0, 1.5, 2, frozenset())
    # A longer prompt in the batch: the rows are padded.
    answers = sample(student, [(4, 1), *[(0, 3)] * count, (1, 2, 3, 4)], how, np.random.default_rng(0))[1:-1]
    seen = np.zeros((tokens, tokens))
    np.add.at(seen, tuple(np.array(answers).T), 1)
    with torch.no_grad():
        first = torch.softmax(student(torch.tensor([[0, 3]])).logits[0, -1] / 1.5, -1)
        pairs = torch.tensor([[0, 3, token] for token in range(tokens)])
        second = torch.softmax(student(pairs).logits[:, -1] / 1.5, -1)
    wanted = (first[:, None] * second).double().flatten().numpy()
    often = count * wanted >= 5
    assert often.sum() > 10
    observed = [*seen.flatten()[often], seen.flatten()[~often].sum()]
    expected = [*wanted[often], wanted[~often].sum()] / wanted.sum() * count
    assert chisquare(observed, expected).pvalue > 0.001


def greedy(student: LlamaForCausalLM, prompt: tuple[int, ...], how: OwnAnswers) -> tuple[int, ...]:
    """What the student would write one token after the other, each time from the beginning."""
    answer: list[int] = []
    while len(answer) < how.max_tokens and not (answer and answer[-1] in how.end_ids):
        with torch.no_grad():
            answer.append(int(student(torch.tensor([[*prompt, *answer]])).logits[0, -1].argmax()))
    return tuple(answer)


def test_without_chance_each_row_is_written_as_if_alone_and_to_its_end(pair):
    student = load_model(pair.student)
    how = OwnAnswers(1.0, 1e-6, 8, frozenset(range(0, len(KEPT), 3)))
    prompts = [row.prompt for row in rows()]
    written = sample(student, prompts, how, np.random.default_rng(0))
    assert written == [greedy(student, prompt, how) for prompt in prompts]
    assert len({len(answer) for answer in written}) > 2


def test_an_end_token_at_once_is_an_answer_of_one_token(pair):
    how = replace(ALWAYS, end_ids=frozenset(range(len(KEPT))))
    (example,) = Writer(how, 1, 0).write(load_model(pair.student), rows()[:1], 0)
    assert len(example.answer) == 1
    batch = collate([example], pad=0)
    assert (len(batch["target"]), int(batch["predicts"].sum())) == (1, 1)


def test_an_answer_ends_with_the_context(pair):
    prompts = [(4,) * 29, (4,) * 31, (4,)]
    how = OwnAnswers(1.0, 1.0, 12, frozenset())
    answers = sample(load_model(pair.student), prompts, how, np.random.default_rng(0))
    assert [len(answer) for answer in answers] == [3, 1, 12]


@given(st.floats(0, 1), st.integers(0, 99))
def test_so_many_batches_are_written_by_the_student(fraction, seed):
    count = 400
    writer = Writer(replace(HALF, fraction=fraction), count, seed)
    assert writer.batches <= set(range(count))
    assert abs(len(writer.batches) - fraction * count) < 5 * 0.5 * count**0.5 + 1
    assert writer.batches == Writer(replace(HALF, fraction=fraction), count, seed).batches


def test_a_batch_is_written_alike_by_the_same_weights_and_by_no_other_number(pair):
    student, writer = load_model(pair.student).train(), Writer(ALWAYS, 2, 7)
    state = torch.get_rng_state()
    first, again, other = (writer.write(student, rows(), number) for number in (0, 0, 1))
    assert first == again != other
    assert [example.prompt for example in first] == [row.prompt for row in rows()]
    # What else draws by chance in a training is not disturbed, nor is dropout switched off.
    assert torch.equal(state, torch.get_rng_state())
    assert student.training


# What is learned


def own_loss(student: torch.nn.Module, pair: Pair) -> float:
    """Reverse KL to the teacher on answers of the student's own, in nats per token."""
    written = Writer(ALWAYS, 1, 99).write(student, rows(), 0)
    imitation = Imitation([ONLINE], student, teacher=pair.teacher)
    with torch.no_grad():
        ((_, value),) = imitation.terms(student, collate(written, pad=0)).values()
    return float(value)


def test_the_teacher_comes_to_like_what_the_student_writes(pair, tmp_path):
    before = own_loss(load_model(pair.student), pair)
    found = trained(pair, tmp_path, [ONLINE], ALWAYS, epochs=15, learning_rate=1e-2)
    assert own_loss(found.model, pair) < 0.6 * before
    assert found.history[-1]["reverse_kl"] < 0.6 * found.history[0]["reverse_kl"]


@pytest.mark.parametrize("settings", [{}, {"freeze_layers": 1, "accumulate": 2}], ids=["plain", "still"])
def test_no_share_of_own_answers_is_no_own_answers(pair, tmp_path, settings):
    none = trained(pair, tmp_path / "none", MIXED, None, **settings)
    zero = trained(pair, tmp_path / "zero", MIXED, replace(HALF, fraction=0.0), **settings)
    assert_same(none, zero)
    assert "on_policy_tokens" not in none.history[-1]
    half = trained(pair, tmp_path / "half", MIXED, HALF, **settings)
    assert not torch.equal(half.model.model.norm.weight, none.model.model.norm.weight)


def test_where_all_answers_are_its_own_the_given_ones_are_not_read(pair, tmp_path):
    terms = [ONLINE, HiddenTerm(weight=0.1), AttentionTerm(weight=0.1)]
    one = trained(pair, tmp_path / "one", terms, ALWAYS, seed=3)
    other = trained(pair, tmp_path / "other", terms, ALWAYS, seed=4)
    assert_same(one, other)
    assert [row.answer for row in rows(3)] != [row.answer for row in rows(4)]
    assert one.history[-1]["on_policy_tokens"] + 4 * sum(len(row.prompt) for row in rows()) == one.tokens


def test_terms_that_need_given_answers_are_left_out_of_the_others(pair):
    student = load_model(pair.student)
    imitation = Imitation(MIXED, student, teacher=pair.teacher, normalise=True)
    imitation.attach(student)
    own = {**collate([Example(row.prompt, row.answer) for row in rows()], pad=0), "own": torch.tensor(True)}
    assert list(imitation.terms(student, own)) == ["reverse_kl", "hidden"]
    sizes = imitation.mixture.magnitudes.clone()
    assert [size > 0 for size in sizes.tolist()] == [True, False, False, True]
    assert list(imitation.terms(student, collate(rows(), pad=0))) == ["reverse_kl", "forward_kl", "text", "hidden"]
    assert (imitation.mixture.magnitudes > 0).all()
    imitation.detach(student)
    plain = Imitation(MIXED, student, teacher=pair.teacher)
    plain.attach(student)
    assert [factor for factor, _ in plain.terms(student, own).values()] == [1.0, 0.1]


def test_layers_are_looked_at_when_an_answer_is_judged_and_not_while_it_is_written(pair):
    student = load_model(pair.student)
    imitation = Imitation([ONLINE, HiddenTerm(), AttentionTerm()], student, teacher=pair.teacher)
    imitation.attach(student)
    written = collate(Writer(ALWAYS, 1, 7).write(student, rows(), 0), pad=0)
    view = imitation.view(student, written)
    again = imitation.view(student, written)
    for shown, wanted in ((view.hidden, again.hidden), (view.attention, again.attention)):
        assert shown is not None
        assert wanted is not None
        for layer, value in shown.student.items():
            assert torch.equal(value, wanted.student[layer])
            assert len(value) == len(view.target)
            assert value.requires_grad


# In the trainer


def test_shares_are_those_of_the_answers_as_they_turn_out(pair, tmp_path, monkeypatch):
    """Of the answer tokens of a step, not of those that were planned."""
    steps: list[list[tuple[float, bool]]] = [[]]

    class Noting(trainer.Watcher):
        def observe(self, terms, loss, share, *, comparable):
            steps[-1].append((share, comparable))
            super().observe(terms, loss, share, comparable=comparable)

        def saw_gradient(self, norm):
            steps.append([])
            super().saw_gradient(norm)

    monkeypatch.setattr(trainer, "Watcher", Noting)
    found = trained(pair, tmp_path, MIXED, HALF, accumulate=3)
    assert all(sum(share for share, _ in step) == pytest.approx(1) for step in steps[:-1])
    # A loss of the student's own answers is no sign of anything beside one of given answers.
    assert {comparable for step in steps for _, comparable in step} == {True, False}
    assert found.tokens != 4 * sum(map(len, rows()))


def test_the_history_tells_every_term_and_the_time_that_writing_took(pair, tmp_path):
    found = trained(pair, tmp_path, MIXED, HALF)
    assert {"reverse_kl", "forward_kl", "text", "hidden"} <= {name for entry in found.history for name in entry}
    last = found.history[-1]
    assert 0 < last["on_policy_seconds"] < last["seconds"]
    assert 0 < last["on_policy_tokens"] < last["tokens"]
    assert found.figures["on_policy_time_share"] == last["on_policy_seconds"] / last["seconds"]
    assert found.figures["on_policy_tokens_per_s"] == last["on_policy_tokens"] / last["on_policy_seconds"]


def test_it_writes_with_the_weights_that_will_ship(pair, tmp_path, monkeypatch):
    """Still layers and moving ones alike, and nothing of the still ones moves."""
    write, checked = Writer.write, []

    def watched(self, model, examples, number):
        for name, weight in model.named_parameters():
            if name.endswith("proj.weight"):
                torch.testing.assert_close(Grid(4, 16)(weight.detach()), weight.detach(), rtol=1e-5, atol=0)
        checked.append(len(model.model.layers))
        return write(self, model, examples, number)

    monkeypatch.setattr(Writer, "write", watched)
    found = train(
        pair.student,
        rows(),
        SETTINGS.model_copy(update={"freeze_layers": 1, "epochs": 2}),
        work=tmp_path,
        seed=1,
        objective=[ONLINE],
        on_policy=ALWAYS,
        teacher=pair.teacher,
        rounding=Rounding(block_size=16),
    )
    assert set(checked) == {2}
    before, after = load_model(pair.student).model.layers, found.model.model.layers
    still, moved = (layer.mlp.up_proj.weight for layer in after)
    assert torch.equal(still, Grid(4, 16)(before[0].mlp.up_proj.weight.detach()))
    assert not torch.equal(moved, Grid(4, 16)(before[1].mlp.up_proj.weight.detach()))


def test_activations_computed_again_give_the_same_weights(pair, tmp_path):
    kept = trained(pair, tmp_path / "kept", [ONLINE], ALWAYS, epochs=1)
    again = trained(pair, tmp_path / "again", [ONLINE], ALWAYS, epochs=1, checkpoint_activations=True)
    for name, value in kept.model.state_dict().items():
        torch.testing.assert_close(again.model.state_dict()[name], value, rtol=1e-4, atol=1e-5, msg=name)


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_on_policy import resumable
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


def resumable(student: Path, teacher: Path, work: Path, progress: Any = None) -> Trained:
    """Given answers and the student's own in one step, terms that miss some of them, and running means of all."""
    return train(
        student,
        rows(),
        SETTINGS.model_copy(update={"epochs": 9, "accumulate": 2, "checkpoint_seconds": 1e-6}),
        work=work,
        seed=1,
        objective=MIXED,
        normalise=True,
        on_policy=HALF,
        teacher=TeacherModel(teacher, KEPT, [1, 3]),
        progress=progress,
    )


def test_killed_and_resumed_is_the_same_to_the_bit(pair, tmp_path):
    unbroken = resumable(pair.student, pair.teacher.folder, tmp_path / "unbroken")
    assert unbroken.history[-1]["step"] > 13
    here, work = str(Path(__file__).parent), tmp_path / "killed"
    command = [sys.executable, "-c", KILLED, here, str(pair.student), str(pair.teacher.folder), str(work)]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert last_checkpoint(work) == work / "checkpoint-10"
    assert_same(unbroken, resumable(pair.student, pair.teacher.folder, work))


class Learned(torch.nn.Module):
    """A term with a weight of its own that goes by given answers: on the student's own it has no gradient."""

    needs = frozenset[str]()

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def loss(self, view: Any) -> torch.Tensor:
        return (self.scale * view.logits.logsumexp(-1) - 1).square().mean()


TOGETHER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_on_policy import together
together(Path(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]))
"""


def together(student: Path, teacher: Path, work: Path) -> Trained:
    from slmops.recipe.objective import CustomTerm

    learned = CustomTerm(kind="custom", custom="test_on_policy:Learned", weight=0.1)
    found = train(
        student,
        rows(),
        SETTINGS.model_copy(update={"accumulate": 2, "learning_rate": 1e-3}),
        work=work,
        seed=1,
        objective=[ONLINE, TextTerm(weight=0.3), learned],
        on_policy=HALF,
        teacher=TeacherModel(teacher, KEPT, [1, 3]),
    )
    state = {name: value.clone() for name, value in found.model.state_dict().items()}
    save_file(state, work / f"rank-{Processes.joined().rank}.safetensors")
    return found


def test_two_processes_train_what_one_trains(pair, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    work = tmp_path / "two"
    command = [
        *(sys.executable, "-c", TOGETHER, str(Path(__file__).parent)),
        *(str(pair.student), str(pair.teacher.folder), str(work)),
    ]
    started = [
        subprocess.Popen(
            command, env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"}
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=200) for process in started] == [0, 0]
    (tmp_path / "one").mkdir()
    one = together(pair.student, pair.teacher.folder, tmp_path / "one")
    for rank in range(2):
        both = load_file(work / f"rank-{rank}.safetensors")
        for name, value in one.model.state_dict().items():
            torch.testing.assert_close(both[name], value, rtol=1e-3, atol=1e-4, msg=name)


# What is refused


@pytest.mark.parametrize(
    ("objective", "fraction", "message", "hint"),
    [
        ([TextTerm(), ForwardKl()], 0.5, "compares the student's own answers", "logits: online"),
        ([HiddenTerm(), AttentionTerm()], 0.5, "compares the student's own answers", "logits: online"),
        ([ReverseKl(logits="online", weight=0), TextTerm()], 0.5, "compares the student's own answers", "a weight"),
        ([ONLINE, TextTerm(), Jsd()], 1.0, "no given answers, which text and jsd of train.objective need", "lower"),
    ],
)
def test_an_objective_that_has_nothing_to_say_of_own_answers_is_refused(
    pair, tmp_path, objective, fraction, message, hint
):
    with pytest.raises(BadInput, match=message) as error:
        trained(pair, tmp_path, objective, replace(HALF, fraction=fraction))
    assert hint in (error.value.hint or "")
    check_on_policy(objective, 0.0)
    assert not list(tmp_path.iterdir())
