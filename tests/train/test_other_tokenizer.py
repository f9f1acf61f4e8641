"""A student of another model, with another tokenizer: a tiny Llama learns from a tiny Gemma 3."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from slmops.data.read import write_jsonl
from slmops.engines import load_engine
from slmops.errors import BadInput
from slmops.models.source import load_model, save_model
from slmops.models.tokenizer import Tokenizer, end_of_answer
from slmops.pipeline.stage import Context
from slmops.progress import Progress, Silent
from slmops.recipe import objective as recipe
from slmops.recipe.objective import Objective
from slmops.recipe.student import Carve
from slmops.recipe.training import Optimisation
from slmops.tasks import Classification
from slmops.teach.answers import load_answers, save_answers
from slmops.teach.label import label_pool
from slmops.train.alignment import align_answers
from slmops.train.collate import collate
from slmops.train.examples import Example
from slmops.train.objectives.imitate import Imitation
from slmops.train.objectives.observe import TeacherModel
from slmops.train.prepare import retold_examples
from slmops.train.stage import CarveStudent, Distil, DistilSettings
from slmops.train.stage_checks import CheckPair, PairSettings
from slmops.train.trainer import train
from tests.families import make
from tests.tokenizer_kinds import tokenizer
from tests.train.histories import learned

LABELS = ("refund where is my order", "other 20 € 🙂 thanks", "cancel Anna Berg")
TASK = Classification(LABELS, None, 48)
POOL = ["where is it", "cancel the lamp", "hello Anna", "I paid 39.90", "thanks"]
MOVED = Optimisation(epochs=20, batch_tokens=1024, precision="fp32", learning_rate=5e-3, checkpoint_seconds=1e6)
"""A step a pass, so that every step is on the same rows."""
CONTEXT = {"max_position_embeddings": 128}


@dataclass(frozen=True)
class Pair:
    """Folders as stages find them: `teacher`, `base` (the other model), `data`, `answers`, `student` (its carve)."""

    folders: Mapping[str, Path]

    def inputs(self, *names: str, **renamed: str) -> dict[str, Path]:
        return {name: self.folders[name] for name in names} | {new: self.folders[old] for new, old in renamed.items()}


def write_model(family: str, told: Tokenizer, folder: Path) -> None:
    (end,) = told.end_ids
    model = make(family, vocab_size=told.size, eos_token_id=end, pad_token_id=end, **CONTEXT)
    save_model(model, folder / "model")
    told.save(folder / "model")


def write_fitted(base: Path, folder: Path) -> None:
    """The model in `base` after it has learned to answer the pool with one label after the other."""
    told = Tokenizer.load(base / "model")
    end = end_of_answer(told)
    answers = [(*told.encode(LABELS[i % len(LABELS)]), end) for i in range(len(POOL))]
    examples = [
        Example(tuple(told.prompt(TASK.render(text))), answer) for text, answer in zip(POOL, answers, strict=True)
    ]
    fit = MOVED.model_copy(update={"epochs": 60, "learning_rate": 5e-3})
    found = train(base / "model", examples, fit, work=folder / "work", seed=1)
    save_model(found.model, folder / "model")
    told.save(folder / "model")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("pair")
    folders = {name: folder / name for name in ("teacher", "base", "data", "answers", "student")}
    write_model("gemma3", tokenizer("gemma"), folder / "unfitted")
    write_fitted(folder / "unfitted", folders["teacher"])
    write_model("llama", tokenizer("bytes"), folders["base"])
    folders["data"].mkdir()
    (folders["data"] / "task.json").write_text(json.dumps(TASK.describe()))
    rows = [{"id": f"p{i}", "input": text} for i, text in enumerate(POOL)]
    write_jsonl(folders["data"] / "pool.jsonl", rows)
    write_jsonl(folders["data"] / "train.jsonl", [{"id": "t", "input": "hm", "output": LABELS[0]}])
    told = Tokenizer.load(folders["teacher"] / "model")
    engine = load_engine("transformers", folders["teacher"] / "model", threads=1)
    written = label_pool(engine, told, TASK, rows, batch=8, top_logits=12, work=folder / "labels")
    assert {answer.text for answer in written} <= set(LABELS), "the tiny teacher must answer in the form of the task"
    save_answers(folders["answers"], written)
    made = Pair(folders)
    cut(made, folders["student"])
    return made


def cut(pair: Pair, out: Path, **settings: object) -> dict:
    out.mkdir()
    carve = Carve(**{"layers": 3, "extra_tokens": 20, **settings})
    CarveStudent().run(
        pair.inputs("data", "answers", "teacher", model="base"), carve, Context(out=out, work=out / "work", seed=7)
    )
    return json.loads((out / "carve.json").read_text())


def distil(
    pair: Pair, folder: Path, objective: Objective, progress: Progress | None = None, **changes: object
) -> list[dict[str, float]]:
    """The history of the stage; its model is in `folder`."""
    settings = DistilSettings(
        optimisation=MOVED.model_copy(update=changes), objective=objective, normalise=False, max_cut_off=0.5
    )
    (folder / "out").mkdir(exist_ok=True, parents=True)
    context = Context(out=folder / "out", work=folder / "work", seed=7, progress=progress or Silent())
    Distil().run(pair.inputs("student", "data", "answers", "teacher"), settings, context)
    return json.loads((folder / "out" / "history.json").read_text())


TERMS = [kind(logits=logits) for kind in (recipe.SpanTerm, recipe.UldTerm) for logits in ("stored", "online")]
both = pytest.mark.parametrize("term", TERMS, ids=lambda term: f"{term.kind}-{term.logits}")


def test_the_two_cut_the_same_answers_at_other_places(pair):
    theirs, ours = (Tokenizer.load(pair.folders[side] / "model") for side in ("teacher", "base"))
    answers = load_answers(pair.folders["answers"])
    told = retold_examples(answers, TASK, ours, theirs.end_ids)
    aligned = align_answers(told, answers, TASK, ours, theirs)
    ends = [example.aligned.ends for example in aligned if example.aligned]
    assert len(ends) == len(POOL)
    tokens = sum(len(example.answer) for example in told)
    spans = sum(map(len, ends))
    assert len(POOL) * 2 < spans < tokens


@both
def test_each_term_falls_through_the_stage(pair, tmp_path, term):
    history = distil(pair, tmp_path, [term])
    assert history[-1][term.kind] < 0.7 * history[0][term.kind]
    assert (tmp_path / "out" / "model" / "model.safetensors").is_file()


def test_by_spans_alone_the_student_learns_what_its_teacher_answers(pair, tmp_path):
    distil(pair, tmp_path, [recipe.SpanTerm()], epochs=40)
    told = Tokenizer.load(tmp_path / "out" / "model")
    prompts = [told.prompt(TASK.render(text)) for text in POOL]
    answers = [[*told.encode(answer.text), *told.end_ids] for answer in load_answers(pair.folders["answers"])]

    def surprise(folder: Path) -> float:
        """Nats per token of the teacher's answers."""
        scores = load_engine("transformers", folder, threads=1).score(prompts, answers)
        return -sum(float(score.sum()) for score in scores) / sum(map(len, answers))

    before, after = surprise(pair.folders["student"] / "model"), surprise(tmp_path / "out" / "model")
    assert after < 0.25 * before


def test_a_teacher_beside_the_student_reads_its_own_tokens_of_the_same_texts(pair):
    theirs, ours = (Tokenizer.load(pair.folders[side] / "model") for side in ("teacher", "base"))
    answers = load_answers(pair.folders["answers"])
    told = align_answers(retold_examples(answers, TASK, ours, theirs.end_ids), answers, TASK, ours, theirs)
    student = load_model(pair.folders["base"] / "model")
    folder = pair.folders["teacher"] / "model"
    imitation = Imitation([recipe.SpanTerm(logits="online")], student, teacher=TeacherModel(folder))
    spans = imitation.view(student, collate(told, pad=0)).online_spans
    assert spans is not None
    engine = load_engine("transformers", folder, threads=1)
    prompts = [theirs.prompt(TASK.render(answer.input)) for answer in answers]
    scores = engine.score(prompts, [answer.tokens.tolist() for answer in answers])
    expected = [
        float(score[begin:end].sum())
        for score, example in zip(scores, told, strict=True)
        for begin, end in zip([0, *example.aligned.ends[:-1, 0]], example.aligned.ends[:, 0], strict=True)
    ]
    torch.testing.assert_close(spans.log_probs, torch.tensor(expected), rtol=1e-3, atol=1e-3)
    # What was stored is what the same teacher says now.
    stored = collate(told, pad=0)["span_log_probs"]
    torch.testing.assert_close(spans.log_probs, stored, rtol=1e-2, atol=1e-2)
    highest = spans.begins.topk(12).values
    torch.testing.assert_close(highest, collate(told, pad=0)["span_begins"], rtol=1e-2, atol=1e-2)


MIXED = [recipe.SpanTerm(), recipe.UldTerm(logits="online", weight=0.5), recipe.TextTerm(weight=0.1)]

KILLED = """
import os, signal, sys
from pathlib import Path
from slmops.progress import Silent
from tests.train.test_other_tokenizer import Pair, resumable

class Deadly:
    def __init__(self): self.steps = 0
    def __enter__(self): return self
    def __exit__(self, *_): pass
    def advance(self, amount=1, **figures):
        self.steps += 1
        if self.steps == 9: os.kill(os.getpid(), signal.SIGKILL)

class Watched(Silent):
    def task(self, title, total, unit): return Deadly()

root = Path(sys.argv[1])
resumable(Pair({path.name: path for path in root.iterdir()}), Path(sys.argv[2]), Watched())
"""


def resumable(pair: Pair, folder: Path, progress: Progress | None = None) -> list[dict[str, float]]:
    return distil(pair, folder, MIXED, progress, checkpoint_seconds=1e-6)


def test_killed_and_resumed_is_the_same_to_the_bit(pair, tmp_path):
    unbroken = resumable(pair, tmp_path / "unbroken")
    command = [sys.executable, "-c", KILLED, str(pair.folders["teacher"].parent), str(tmp_path / "killed")]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (tmp_path / "killed" / "out" / "model").exists()
    resumed = resumable(pair, tmp_path / "killed")
    one, other = (load_file(tmp_path / way / "out" / "model" / "model.safetensors") for way in ("unbroken", "killed"))
    assert all(torch.equal(weight, other[name]) for name, weight in one.items())
    assert learned(resumed) == learned(unbroken)


@pytest.mark.parametrize(
    "term", [recipe.ForwardKl(), recipe.Jsd(logits="online"), recipe.HiddenTerm(), recipe.AttentionTerm()]
)
def test_what_goes_token_by_token_is_refused_before_the_teacher_is_fitted_and_after(pair, tmp_path, term):
    context = Context(out=tmp_path, work=tmp_path, seed=7)
    objective = [recipe.TextTerm(), term, recipe.SpanTerm()]
    with pytest.raises(BadInput, match=f"train.objective: {term.kind}: compares the models token by token") as early:
        CheckPair().run(pair.inputs("teacher", student="base"), PairSettings(objective=objective), context)
    for kind in ("span", "uld", "text"):
        assert kind in (early.value.hint or "")
    with pytest.raises(BadInput) as late:
        distil(pair, tmp_path, objective)
    assert (str(late.value), late.value.hint) == (str(early.value), early.value.hint)


def test_a_student_with_the_teachers_vocabulary_may_go_token_by_token(pair, tmp_path):
    context = Context(out=tmp_path, work=tmp_path, seed=7)
    objective = PairSettings(objective=[recipe.ForwardKl()])
    figures = CheckPair().run(pair.inputs("teacher", student="teacher"), objective, context)
    size = tokenizer("gemma").size
    assert figures == {"vocabulary": "shared", "tokens": size, "tokens_of_teacher": size}
    assert json.loads((tmp_path / "pair.json").read_text()) == figures


def test_another_model_is_cut_by_what_the_answers_are_in_its_own_tokens(pair, tmp_path):
    record = cut(pair, tmp_path / "cut", layers=2, heads=2, channels=32)
    assert record["of_teacher"] is False
    assert [record["after"][part] for part in ("layers", "heads", "channels")] == [2, 2, 32]
    small, whole = Tokenizer.load(tmp_path / "cut" / "model"), tokenizer("bytes")
    assert small.size < whole.size
    for answer in load_answers(pair.folders["answers"]):
        assert [record["tokens"][token] for token in small.encode(answer.text)] == whole.encode(answer.text)


def test_another_model_may_stay_whole(pair, tmp_path):
    record = cut(pair, tmp_path / "whole", layers=None, vocabulary="keep")
    assert record["before"] == record["after"]
    one, other = (
        load_file(folder / "model" / "model.safetensors") for folder in (pair.folders["base"], tmp_path / "whole")
    )
    assert all(torch.equal(weight, other[name]) for name, weight in one.items())


def test_terms_of_spans_want_aligned_examples_and_stored_ones_what_was_stored(pair, tmp_path):
    theirs, ours = (Tokenizer.load(pair.folders[side] / "model") for side in ("teacher", "base"))
    answers = load_answers(pair.folders["answers"])
    told = retold_examples(answers, TASK, ours, theirs.end_ids)
    run = partial(train, pair.folders["base"] / "model", settings=MOVED, work=tmp_path, seed=1)
    with pytest.raises(BadInput, match="not every example is aligned"):
        run(told, objective=[recipe.UldTerm()])
    none = [
        replace(answer, top_ids=answer.top_ids[:, :0], top_log_probs=answer.top_log_probs[:, :0]) for answer in answers
    ]
    aligned = align_answers(told, none, TASK, ours, theirs)
    with pytest.raises(BadInput, match="stored probabilities, and none were kept"):
        run(aligned, objective=[recipe.SpanTerm()])
    with pytest.raises(BadInput, match="span needs the teacher's model"):
        run(aligned, objective=[recipe.SpanTerm(logits="online")])
