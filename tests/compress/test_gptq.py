"""Rounding that makes up for itself: it ships as it is, and costs less than rounding to nearest."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slmops.compress import layerwise
from slmops.compress.calibration import calibration_texts
from slmops.compress.gptq import quantise, round_to_grid
from slmops.compress.stage import Convert
from slmops.data.read import write_jsonl
from slmops.engines import load_engine
from slmops.errors import BadInput
from slmops.models.rounding import Grid
from slmops.models.source import load_model, save_model
from slmops.models.tag_head import TagHead, attach
from slmops.pipeline.stage import Context
from slmops.progress import Silent
from slmops.recipe.compress import CompressSettings
from slmops.tasks.marking import Marking
from tests.families import FAMILIES, IDS, make
from tests.tiny_task import SCHEMA, TASK

GRIDS = st.builds(Grid, st.sampled_from([4, 8]), st.sampled_from([16, 32, 64, 128]), st.booleans())


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def correlated(rows: int, width: int, seed: int) -> torch.Tensor:
    """What comes into a layer: a few directions and some noise."""
    return random(rows, 8, seed=seed) @ random(8, width, seed=seed + 1) + 0.3 * random(rows, width, seed=seed + 2)


@given(st.integers(1, 9), st.integers(1, 300), GRIDS, st.integers(0, 9))
def test_rounding_the_result_to_nearest_changes_nothing(rows, width, grid, seed):
    weight = random(rows, width, seed=seed)
    weight[0, : width // 2] = 0
    given = correlated(40, width, seed)
    rounded = round_to_grid(weight, given.T @ given, grid)
    torch.testing.assert_close(grid(rounded), rounded, rtol=1e-5, atol=1e-7)
    assert torch.isfinite(rounded).all()
    assert (rounded[weight == 0] == 0).all()


@given(st.integers(1, 9), st.integers(1, 300), GRIDS)
def test_where_inputs_have_nothing_to_do_with_each_other_it_is_rounding_to_nearest(rows, width, grid):
    weight = random(rows, width, seed=width)
    torch.testing.assert_close(round_to_grid(weight, torch.eye(width), grid), grid(weight))


@pytest.mark.parametrize("grid", [Grid(4, 16), Grid(4, 32, False), Grid(4, 128), Grid(8, 32)], ids=str)
def test_outputs_change_less_than_by_rounding_to_nearest(grid):
    weight, given = random(48, 192, seed=1), correlated(1000, 192, seed=5)
    nearest, made_up = grid(weight), round_to_grid(weight, given.T @ given, grid)
    apart = [float((given @ (weight - rounded).T).square().sum()) for rounded in (nearest, made_up)]
    assert apart[1] < 0.5 * apart[0]


def test_a_channel_that_nothing_comes_through_and_weights_of_zero_are_no_trouble():
    weight, given = random(4, 64, seed=1), correlated(50, 64, seed=2)
    weight[:, :32], weight[:, 40], given[:, 5] = 0, 0, 0
    rounded = round_to_grid(weight, given.T @ given, Grid(4, 32))
    assert (rounded[weight == 0] == 0).all()
    assert torch.isfinite(round_to_grid(weight, torch.zeros(64, 64), Grid(4, 32))).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_layer_of_every_family_is_measured_on_what_reaches_it_and_rounded(family):
    model = make(family).eval()
    before = copy.deepcopy(model)
    texts = [IDS[0].tolist(), IDS[1, :7].tolist(), IDS[0, 3:].tolist()]
    figures = quantise(model, texts, Grid(4, 16), Silent(), int8_layers=[1])
    assert 0 < figures["rounding_error"] < 0.05
    for i, layer in enumerate(model.get_decoder().layers):
        linear = [module.weight for module in layer.modules() if isinstance(module, torch.nn.Linear)]
        assert all(torch.equal(Grid(4, 16)(weight), weight) for weight in linear) == (i != 1)
        assert all(torch.equal(Grid(8, 16)(weight), weight) for weight in linear)
    kept = dict(before.named_parameters())
    for name, weight in model.named_parameters():
        assert torch.equal(weight, kept[name]) == (".layers." not in name or "norm" in name or name.endswith("bias"))
    # Nothing but weights has changed: the model still runs, and by the first layer alone it is what was measured.
    with torch.no_grad():
        assert torch.isfinite(model(IDS).logits).all()


def test_padding_is_not_measured(monkeypatch):
    """A text measured beside a longer one weighs as it does alone."""
    texts, rounded, shapes = [[3, 4, 5], [6, 7, 8, 9, 10, 11]], [], []
    for tokens in (1000, 1):
        monkeypatch.setattr(layerwise, "_BATCH_TOKENS", tokens)
        model = make("llama").eval()
        first = model.get_decoder().layers[0].mlp.down_proj
        first.register_forward_pre_hook(lambda _, given: shapes.append(tuple(given[0].shape[:2])))
        quantise(model, texts, Grid(4, 16), Silent())
        rounded.append(first.weight.detach())
    # Measured and run on: together with padding, then each by itself.
    assert shapes == [(2, 6)] * 2 + [(1, 3), (1, 6)] * 2
    # Sums of another order may put a weight on the other side of a step.
    assert float(torch.isclose(*rounded, atol=1e-5).float().mean()) > 0.99


@pytest.fixture(scope="module")
def tickets(tiny, tmp_path_factory) -> Path:
    """Labelled rows and a pool as the data stage leaves them."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "task.json").write_text(json.dumps(TASK.describe()))
    rows = [
        {"id": str(i), "input": text, "output": TASK.parse(answer)}
        for i, (text, answer) in enumerate(tiny.pairs.items())
    ]
    write_jsonl(folder / "train.jsonl", rows)
    write_jsonl(folder / "pool.jsonl", [{"id": f"p{i}", "input": f"Where is order {i}?"} for i in range(20)])
    return folder


def test_labelled_rows_are_measured_with_their_answers_and_then_the_pool(tiny, tickets):
    texts = calibration_texts(tickets, tiny.folder, 10_000)
    assert len(texts) == len(tiny.pairs) + 20
    said = [tiny.tokenizer.decode(text) for text in texts]
    for (question, answer), text in zip(tiny.pairs.items(), said, strict=False):
        assert question in text
        assert TASK.write(TASK.parse(answer)) in text
    assert "Where is order 19?" in said[-1]
    few = calibration_texts(tickets, tiny.folder, 300)
    assert few == texts[: len(few)]
    assert sum(map(len, few[:-1])) < 300 <= sum(map(len, few))


def test_too_few_texts_are_refused(tiny, tmp_path):
    (tmp_path / "task.json").write_text(json.dumps(TASK.describe()))
    write_jsonl(tmp_path / "train.jsonl", [{"id": "1", "input": "Where?", "output": {"intent": "other"}}])
    write_jsonl(tmp_path / "pool.jsonl", [])
    with pytest.raises(BadInput, match="the rows to measure the layers on have"):
        calibration_texts(tmp_path, tiny.folder, 4096)


def test_what_was_rounded_is_what_ships(tiny, tickets, tmp_path):
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "model").symlink_to(tiny.folder)
    settings = CompressSettings(algorithm="gptq", block_size=16, calibration_tokens=2000, head="int8")
    context = Context(out=tmp_path / "out", work=tmp_path / "work", seed=7)
    figures = Convert().run({"model": tmp_path / "student", "data": tickets}, settings, context)
    assert 0 < figures["rounding_error"] < 0.1
    # Answers that it does not know by heart, for of those that it does it stays certain.
    prompts = [tiny.prompt(text) for text in tiny.pairs]
    answers = [tiny.tokenizer.encode(answer) for answer in reversed(tiny.pairs.values())]
    rounded = load_model(tiny.folder).eval()
    quantise(rounded, calibration_texts(tickets, tiny.folder, 2000), Grid(4, 16), Silent())
    save_model(rounded, tmp_path / "rounded", tokenizer_from=tiny.folder)
    ours, shipped, before = (
        np.concatenate(load_engine(*which, threads=1).score(prompts, answers))
        for which in (
            ("transformers", tmp_path / "rounded"),
            ("onnxruntime-genai", tmp_path / "out" / "model"),
            ("transformers", tiny.folder),
        )
    )
    # What is left between the two is the head in eight bits and activations in less than float32.
    assert np.abs(ours - shipped).mean() < 0.3 * np.abs(before - shipped).mean()


def test_a_model_that_labels_is_measured_on_its_readings(tiny, tickets, tmp_path):
    model = load_model(tiny.folder)
    attach(model, TagHead(model.config.hidden_size, Marking.of(SCHEMA).sizes, TASK.describe()))
    save_model(model, tmp_path, tokenizer_from=tiny.folder)
    text = next(iter(tiny.pairs))
    first = tiny.tokenizer.decode(calibration_texts(tickets, tmp_path, 1000)[0])
    assert first.count(text) == 2
