"""Recovery: the rounded student says again what it said, in the form it ships in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from slmops.data.read import write_jsonl
from slmops.models.rounding import Grid
from slmops.models.source import load_model, save_model
from slmops.models.tag_head import TagHead, attach, tag_head
from slmops.pipeline.stage import Context
from slmops.recipe.compress import CompressSettings
from slmops.recipe.objective import ForwardKl
from slmops.recipe.student import Head
from slmops.recipe.training import Optimisation, Rounding
from slmops.teach.answers import Answer, save_answers
from slmops.train.collate import collate
from slmops.train.cut import Kept
from slmops.train.examples import Example
from slmops.train.grids import grids_of
from slmops.train.objectives.divergences import kl
from slmops.train.objectives.imitate import Imitation
from slmops.train.objectives.observe import TeacherModel, answer_logits, labels_asked
from slmops.train.objectives.outcomes import outcomes
from slmops.train.stage_recover import Recover, RecoverSettings
from tests.families import make
from tests.tiny_task import TASK

MOVED = Optimisation(epochs=30, learning_rate=1e-3, batch_tokens=256, precision="fp32", checkpoint_seconds=1e6)
SHIPS = CompressSettings(block_size=128, head="int4")


@pytest.fixture
def inputs(tiny, tmp_path) -> dict[str, Path]:
    """A student, its teacher's answers and labelled rows."""
    folders = {name: tmp_path / name for name in ("student", "carved", "teacher", "data", "answers")}
    for name, folder in folders.items():
        folder.mkdir()
        if name in ("student", "carved", "teacher"):
            (folder / "model").symlink_to(tiny.folder)
    (folders["carved"] / "carve.json").write_text(json.dumps(asdict(Kept(None, [0, 1], None, None))))
    (folders["data"] / "task.json").write_text(json.dumps(TASK.describe()))
    rows = [
        {"id": f"t{i}", "input": text, "output": TASK.parse(answer)}
        for i, (text, answer) in enumerate(tiny.pairs.items())
    ]
    write_jsonl(folders["data"] / "train.jsonl", rows)
    (end,) = tiny.tokenizer.end_ids
    given = []
    for i, (text, answer) in enumerate(tiny.pairs.items()):
        tokens = np.array([*tiny.tokenizer.encode(answer), end])
        given.append(
            Answer(
                f"p{i}",
                text,
                answer,
                tokens,
                np.zeros((len(tokens), 1), np.int32),
                np.zeros((len(tokens), 1), np.float32),
            )
        )
    save_answers(folders["answers"], given)
    return folders


def recovered(inputs: dict[str, Path], folder: Path, head: Head, moved: Optimisation = MOVED) -> torch.nn.Module:
    settings = RecoverSettings(optimisation=moved, ships=SHIPS, head=head, max_cut_off=0.0)
    (folder / "out").mkdir()
    figures = Recover().run(inputs, settings, Context(out=folder / "out", work=folder / "work", seed=7))
    assert "loss_forward_kl" in figures
    return load_model(folder / "out" / "model")


def rounded(model: torch.nn.Module) -> torch.nn.Module:
    with torch.no_grad():
        for weight, grid in grids_of(model, SHIPS).items():
            weight.copy_(grid(weight))
    return model


def apart(model: torch.nn.Module, before: Path, examples: Sequence[Example]) -> float:
    """KL from the model in `before`, the mean over what is said, in nats."""
    imitation = Imitation([ForwardKl(logits="online")], model, teacher=TeacherModel(before))
    with torch.no_grad():
        view = imitation.view(model, collate(examples, pad=0))
    return float(kl(*outcomes(view, "online", 1.0)).mean())


def test_it_wins_back_most_of_what_rounding_takes_and_lies_on_the_grid(tiny, inputs, tmp_path):
    (end,) = tiny.tokenizer.end_ids
    rows = [Example(tuple(tiny.prompt(text)), (*tiny.tokenizer.encode(a), end)) for text, a in tiny.pairs.items()]
    # Of answers that a student knows by heart it stays certain when it is rounded; this one is certain of nothing.
    before = tmp_path / "random" / "model"
    shape = {
        "vocab_size": tiny.tokenizer.size,
        "max_position_embeddings": 128,
        "eos_token_id": end,
        "pad_token_id": end,
    }
    save_model(make("llama", **shape), before, tokenizer_from=tiny.folder)
    inputs["student"] = tmp_path / "random"
    nearest, ours = rounded(load_model(before)), recovered(inputs, tmp_path, "language")
    assert apart(nearest, before, rows) > 0.01
    assert apart(ours, before, rows) < 0.5 * apart(nearest, before, rows)
    for weight, grid in grids_of(ours, SHIPS).items():
        torch.testing.assert_close(grid(weight), weight.detach(), rtol=1e-5, atol=0)
    # Nothing but weights is another.
    assert (tmp_path / "out" / "model" / "tokenizer.json").read_bytes() == (tiny.folder / "tokenizer.json").read_bytes()


@pytest.fixture
def tagger(tiny, inputs, tmp_path) -> Path:
    """A student that labels, with a head that says something."""
    from slmops.train.tagged import new_head

    model = load_model(tiny.folder)
    head = new_head(TASK, tiny.tokenizer, model.config.hidden_size)
    torch.manual_seed(3)
    with torch.no_grad():
        head.matrix.normal_(std=0.05)
    attach(model, head)
    save_model(model, tmp_path / "tagger" / "model", tokenizer_from=tiny.folder)
    inputs["student"] = tmp_path / "tagger"
    return tmp_path / "tagger" / "model"


def labelled(tiny) -> list[Example]:
    from slmops.train.tagged import Answered, tagged_examples

    rows = [Answered(str(i), text, TASK.parse(answer)) for i, (text, answer) in enumerate(tiny.pairs.items())]
    return tagged_examples(rows, TASK, tiny.tokenizer)[0]


def test_a_student_that_labels_teaches_its_labels(tiny, tagger, inputs, tmp_path):
    rows = labelled(tiny)
    nearest, ours = rounded(load_model(tagger)), recovered(inputs, tmp_path, "tags")
    assert tag_head(ours) is not None
    assert apart(load_model(tagger), tagger, rows) < 1e-6
    assert apart(ours, tagger, rows) < 0.5 * apart(nearest, tagger, rows)


def test_labels_are_compared_in_the_group_that_one_is_chosen_from(tiny, tagger):
    model, rows = load_model(tagger), labelled(tiny)
    batch = collate(rows, pad=0)
    asked, head = labels_asked(model, batch), tag_head(model)
    assert isinstance(head, TagHead)
    assert asked is not None
    assert asked.gather(1, batch["target"][:, None]).all()
    assert set(asked.sum(1).tolist()) == set(head.sizes)
    with torch.no_grad():
        said = answer_logits(model, batch).masked_fill(~asked, -torch.inf)
    torch.testing.assert_close(said.exp().sum(1), torch.ones(len(said)))


def test_a_recipes_rounding_is_that_of_the_settings_that_ship_it(tiny):
    model = load_model(tiny.folder)
    for head in ("int4", "int8"):
        ours, theirs = (grids_of(model, each) for each in (Rounding(head=head), CompressSettings(head=head)))
        assert ours == theirs
        assert (model.get_input_embeddings().weight in ours) == (head == "int4")
    assert set(grids_of(model, CompressSettings(precision="int8", symmetric=False)).values()) == {Grid(8, 32, False)}
    # One matrix that ships twice, with unlike bits, is on neither's grid.
    assert model.lm_head.weight not in grids_of(model, CompressSettings(head="int4", embedding="int8"))
