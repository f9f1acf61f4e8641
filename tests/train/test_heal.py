"""Healing: the text in blocks, the way back to the uncut model, and what is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slmops.data.read import write_jsonl
from slmops.errors import BadInput
from slmops.models.carve import keep_layers
from slmops.models.source import load_model, save_model
from slmops.models.tokenizer import Tokenizer, end_of_answer
from slmops.pipeline.stage import Context
from slmops.progress import Silent
from slmops.recipe.objective import AttentionTerm, HiddenTerm, Objective
from slmops.recipe.student import Heal as HealRecipe
from slmops.recipe.training import Optimisation, StopEarly
from slmops.samples.tickets import tickets
from slmops.tasks import Classification
from slmops.train.cut import Kept, read_kept, size_of, write_kept
from slmops.train.examples import Example
from slmops.train.heal import choose_blocks, distance, packed, text_blocks
from slmops.train.objectives.observe import TeacherModel
from slmops.train.stage_heal import CheckHeal, Heal, HealSettings
from slmops.train.trainer import train

TASK = Classification(("refund", "other"), None, 8)
LENGTH = 32
MOVED = Optimisation(epochs=4, learning_rate=3e-3, batch_tokens=256, precision="fp32", checkpoint_seconds=1e-6)


def settings(moved: Optimisation = MOVED, objective: Objective | None = None, **changes: Any) -> HealSettings:
    found = {"normalise": False, "column": "text", "tokens": 12_000, "length": LENGTH, "every": 1} | changes
    return HealSettings(optimisation=moved, objective=objective or HealRecipe().objective, **found)


TOKENS = st.lists(st.lists(st.integers(2, 99), max_size=30), max_size=12)


@given(TOKENS, st.integers(2, 40))
def test_every_token_comes_once_and_in_order_in_blocks_of_one_length(texts, length):
    blocks = packed(texts, end=1, length=length)
    assert [token for block in blocks for token in block.tolist()] == [t for text in texts for t in (*text, 1)]
    assert all(len(block) == length for block in blocks[:-1])
    assert all(1 <= len(block) <= length for block in blocks[-1:])


@given(
    sizes=st.lists(st.just(8), min_size=2, max_size=80),
    last=st.integers(1, 8),
    tokens=st.integers(1, 2000),
    seed=st.integers(0, 99),
)
def test_blocks_to_measure_on_are_never_trained_on(sizes, last, tokens, seed):
    blocks = [np.full(size, i) for i, size in enumerate([*sizes, last])]
    chosen = choose_blocks(blocks, tokens=tokens, most_passes=3, length=8, seed=seed)
    train, held = ([example.prompt[0] for example in side] for side in (chosen.train, chosen.held_out))
    assert len({*train, *held}) == len(train) + len(held)
    assert held
    assert len(train) * 8 < tokens + 8 or len(train) == 1
    assert 1 <= chosen.passes <= 3
    assert chosen.passes == 3 or chosen.tokens >= tokens - 8
    assert chosen == choose_blocks(blocks, tokens=tokens, most_passes=3, length=8, seed=seed)
    assert all(len(example.prompt) == 1 for example in chosen.train)


def test_one_block_is_too_little():
    with pytest.raises(BadInput, match="the text has 9 tokens, and it takes two blocks of 8") as error:
        choose_blocks([np.arange(8), np.arange(1)], tokens=5, most_passes=1, length=8, seed=0)
    assert "lower student.heal.length" in (error.value.hint or "")


@pytest.fixture(scope="module")
def inputs(tiny_tokenizer, tmp_path_factory) -> dict[str, Path]:
    """A teacher of four layers that has read tickets, the same without its two middle layers, and other tickets."""
    root = tmp_path_factory.mktemp("heal")
    folders = {name: root / name for name in ("teacher", "student", "data")}
    for folder in folders.values():
        folder.mkdir()
    (folders["data"] / "task.json").write_text(json.dumps(TASK.describe()))
    read, other = ([row["input"] for row in tickets("train", 120, seed)] for seed in (1, 2))
    sides = {"pool": read[:30], "train": read[30:40], "validation": other[:2], "test": other[2:4]}
    for side, texts in sides.items():
        rows = [{"id": f"{side}-{i}", "input": text, "output": "other"} for i, text in enumerate(texts)]
        write_jsonl(folders["data"] / f"{side}.jsonl", rows)
    write_jsonl(root / "text.jsonl", [{"text": text} for text in other])
    _write_teacher(root / "untaught", folders["teacher"] / "model", tiny_tokenizer, read)
    _cut(folders["teacher"] / "model", folders["student"], [0, 3])
    return {**folders, "text:0": root / "text.jsonl"}


def _write_teacher(untaught: Path, folder: Path, tokenizer: Tokenizer, texts: list[str]) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    shape = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4}
    config = LlamaConfig(
        vocab_size=tokenizer.size, num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=True, **shape
    )
    LlamaForCausalLM(config).save_pretrained(untaught)
    tokenizer.save(untaught)
    blocks = packed(map(tokenizer.encode, texts), end=end_of_answer(tokenizer), length=LENGTH)
    chosen = choose_blocks(blocks, tokens=10**6, most_passes=8, length=LENGTH, seed=0)
    moved = Optimisation(epochs=8, learning_rate=5e-3, batch_tokens=512, precision="fp32", checkpoint_seconds=1e6)
    save_model(train(untaught, chosen.train, moved, work=untaught / "work", seed=1).model, folder)
    tokenizer.save(folder)


def _cut(model: Path, out: Path, layers: list[int]) -> None:
    student = load_model(model)
    before = size_of(student)
    keep_layers(student, layers)
    save_model(student, out / "model", tokenizer_from=model)
    write_kept(out, Kept(None, layers, None, None), before, size_of(student))


def heal(inputs: dict[str, Path], folder: Path, wanted: HealSettings) -> dict[str, Any]:
    out = folder / "out"
    out.mkdir(parents=True)
    return dict(Heal().run(inputs, wanted, Context(out=out, work=folder / "work", seed=7)))


def test_what_is_healed_is_nearer_to_the_uncut_model_and_reads_text_better(inputs, tmp_path):
    figures = heal(inputs, tmp_path, settings())
    assert figures["kl_after"] < 0.6 * figures["kl_before"]
    assert figures["perplexity_after"] < 0.9 * figures["perplexity_before"]
    history = json.loads((tmp_path / "out" / "history.json").read_text())
    for term in ("forward_kl", "hidden"):
        assert history[-1][term] < history[0][term]
    assert figures["train_tokens"] == pytest.approx(12_000, rel=0.02)
    assert json.loads((tmp_path / "out" / "heal.json").read_text()) == figures
    # What comes next reads it as if it had just been carved.
    assert read_kept(tmp_path / "out") == read_kept(inputs["student"])
    assert Tokenizer.load(tmp_path / "out" / "model").size == Tokenizer.load(inputs["teacher"] / "model").size


def test_a_model_is_no_distance_from_itself(inputs):
    blocks = choose_blocks(
        packed([range(3, 300)], end=2, length=LENGTH), tokens=1, most_passes=1, length=LENGTH, seed=1
    )
    folder = inputs["teacher"] / "model"
    apart = distance(load_model(folder), TeacherModel(folder), blocks.held_out, batch_tokens=64)
    assert apart.kl == pytest.approx(0, abs=1e-5)
    assert apart.perplexity == pytest.approx(apart.uncut_perplexity)


def test_the_distance_is_that_of_the_probabilities(inputs):
    blocks = [Example((5,), (6, 7, 8)), Example((9,), (10, 11))]
    student, teacher = (load_model(inputs[name] / "model") for name in ("student", "teacher"))
    told = distance(student, TeacherModel(inputs["teacher"] / "model"), blocks, batch_tokens=4)
    nats = {"kl": [], "ours": [], "theirs": []}
    for block in blocks:
        ids = torch.tensor([[*block.prompt, *block.answer]])
        with torch.no_grad():
            ours, theirs = (torch.log_softmax(model(ids).logits[0, :-1], -1) for model in (student, teacher))
        nats["kl"] += (theirs.exp() * (theirs - ours)).sum(-1).tolist()
        for name, log_probs in (("ours", ours), ("theirs", theirs)):
            nats[name] += (-log_probs.gather(1, ids[0, 1:, None])).flatten().tolist()
    assert told.kl == pytest.approx(np.mean(nats["kl"]), rel=1e-4)
    assert told.perplexity == pytest.approx(np.exp(np.mean(nats["ours"])), rel=1e-4)
    assert told.uncut_perplexity == pytest.approx(np.exp(np.mean(nats["theirs"])), rel=1e-4)


def test_without_files_the_prompts_of_the_rows_are_the_text(inputs, tiny_tokenizer):
    files = {"column": "text", "length": 16, "progress": Silent()}
    blocks = text_blocks([], inputs["data"], TASK, tiny_tokenizer, **files)
    text = tiny_tokenizer.decode(np.concatenate(blocks).tolist())
    rows = [row for side in ("pool", "train") for row in _rows(inputs, side)]
    assert all(row["input"] in text for row in rows)
    assert (
        np.concatenate(blocks).tolist()[: len(first := tiny_tokenizer.prompt(TASK.render(rows[0]["input"])))] == first
    )
    assert text.count("other") == "".join(row["input"] for row in rows).count("other"), "no answer is in it"


def _rows(inputs: dict[str, Path], side: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (inputs["data"] / f"{side}.jsonl").read_text().splitlines()]


def test_rows_that_are_measured_on_are_left_out_of_the_text(inputs, tiny_tokenizer):
    notes: list[str] = []

    class Noting(Silent):
        def note(self, text: str) -> None:
            notes.append(text)

    files = {"column": "text", "length": 16, "progress": Noting()}
    blocks = text_blocks([inputs["text:0"]] * 2, inputs["data"], TASK, tiny_tokenizer, **files)
    text = tiny_tokenizer.decode(np.concatenate(blocks).tolist())
    assert not [row for side in ("test", "validation") for row in _rows(inputs, side) if row["input"] in text]
    # Four are held out, and all others come again in the second file.
    texts = {json.loads(line)["text"] for line in inputs["text:0"].read_text().splitlines()}
    assert all(text.count(one) == 1 for one in sorted(texts)[:20] if one in text)
    assert len(notes) == 1


def test_stopping_early_goes_by_the_blocks_that_are_kept_apart(inputs, tmp_path):
    moved = MOVED.model_copy(update={"stop_early": StopEarly(patience=9, every=0.5), "freeze_layers": 1})
    figures = heal(inputs, tmp_path, settings(moved, tokens=3000))
    assert np.exp(figures["validation_loss"]) == pytest.approx(figures["perplexity_after"], rel=1e-3)


KILLED = """
import json, os, signal, sys
from pathlib import Path
from slmops.pipeline.stage import Context
from slmops.progress import Silent
from slmops.train.stage_heal import Heal, HealSettings

class Deadly:
    steps = 0
    def __enter__(self): return self
    def __exit__(self, *_): pass
    def advance(self, amount=1, **figures):
        self.steps += 1
        if self.steps == 13: os.kill(os.getpid(), signal.SIGKILL)

class Watched(Silent):
    def task(self, title, total, unit):
        return Deadly() if title.startswith("heal on") else super().task(title, total, unit)

inputs = {name: Path(path) for name, path in json.loads(sys.argv[1]).items()}
folder = Path(sys.argv[2])
(folder / "torn").mkdir(parents=True)
context = Context(out=folder / "torn", work=folder / "work", seed=7, progress=Watched())
Heal().run(inputs, HealSettings.model_validate_json(sys.argv[3]), context)
"""


def test_killed_and_resumed_is_the_same_to_the_bit(inputs, tmp_path):
    wanted, few = settings(every=2, tokens=6000), tmp_path / "few.jsonl"
    few.write_text("".join(inputs["text:0"].read_text().splitlines(keepends=True)[:40]))
    inputs = {**inputs, "text:0": few}
    unbroken = heal(inputs, tmp_path / "unbroken", wanted)
    assert unbroken["passes"] > 1, "what the teacher makes of the text is kept, and made again"
    given_ = json.dumps({name: str(path) for name, path in inputs.items()})
    command = [sys.executable, "-c", KILLED, given_, str(tmp_path / "killed"), wanted.model_dump_json()]
    assert subprocess.run(command, env=os.environ).returncode == -signal.SIGKILL
    assert (tmp_path / "killed" / "work" / "checkpoint-10" / "state.json").is_file()
    resumed = heal(inputs, tmp_path / "killed", wanted)
    one, other = (load_model(tmp_path / name / "out" / "model").state_dict() for name in ("unbroken", "killed"))
    assert all(weight.equal(other[name]) for name, weight in one.items())
    timed = ("train_seconds", "tokens_per_s", "peak_memory_bytes")
    assert {k: v for k, v in resumed.items() if k not in timed} == {k: v for k, v in unbroken.items() if k not in timed}


def check(inputs: dict[str, Path], folder: Path, wanted: HealSettings) -> dict[str, Any]:
    taken = {"model": inputs["teacher"], "data": inputs["data"], "text:0": inputs["text:0"]}
    return dict(CheckHeal().run(taken, wanted, Context(out=folder, work=folder / "work", seed=7)))


def test_a_text_is_looked_at_before_the_teacher_is_fitted(inputs, tmp_path):
    figures = check(inputs, tmp_path, settings(tokens=10**6))
    assert figures == json.loads((tmp_path / "text.json").read_text())
    assert figures["passes"] == 4


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (settings(length=129), "student.heal.length 129 is longer than the model's context of 128 tokens"),
        (
            settings(MOVED.model_copy(update={"freeze_layers": 4})),
            "student.heal.freeze_layers 4 leaves nothing to heal: the model has 4 layers",
        ),
        (settings(column="body"), r"text.jsonl:1: no `body`; there is `text`"),
        (
            settings(objective=[HiddenTerm(student_layers=[0], teacher_layers=[4])]),
            "student.heal.objective: hidden.teacher_layers: the teacher has no layer 4: it has 4 layers",
        ),
        (
            settings(objective=[HiddenTerm(), AttentionTerm(student_layers=[1], teacher_layers=[9])]),
            "student.heal.objective: attention.teacher_layers: the teacher has no layer 9",
        ),
    ],
)
def test_what_healing_could_not_be_done_with_is_refused_before_the_teacher_is_fitted(inputs, tmp_path, wanted, said):
    with pytest.raises(BadInput) as error:
        check(inputs, tmp_path, wanted)
    assert said in str(error.value)


def test_a_text_that_is_too_little_is_told_before_the_teacher_is_fitted(inputs, tmp_path):
    (tmp_path / "short.txt").write_text("hm")
    with pytest.raises(BadInput, match="it takes two blocks of 32"):
        check({**inputs, "text:0": tmp_path / "short.txt"}, tmp_path, settings())
