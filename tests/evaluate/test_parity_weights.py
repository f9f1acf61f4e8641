"""The weights of every family of models are found again in what ships, however they are rounded; others are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from slmops.compress.export import export
from slmops.errors import BadInput
from slmops.evaluate.parity_gates import MOST_TURNED
from slmops.evaluate.parity_weights import compare_weights, likenesses
from slmops.models.source import load_model, save_model
from tests.compress.test_pack import POSITIONS, made
from tests.families import FAMILIES, make
from tests.tokenizer_kinds import tokenizer

WAYS: list[dict[str, Any]] = [
    {"precision": "fp32"},
    {"precision": "int8", "symmetric": False},
    {"block_size": 128},
    {"symmetric": False, "head": "int4", "embedding": "int8", "block_size": 16},
    {"algorithm": "k_quant", "head": "fp32"},
]


def model(family: str, folder: Path, **changes: Any) -> Path:
    """A random model that the runtime can export."""
    told = tokenizer("gemma")
    (end,) = told.end_ids
    shape = {"hidden_size": 128, "max_position_embeddings": 128} | POSITIONS.get(family, {})
    save_model(make(family, vocab_size=told.size, eos_token_id=end, pad_token_id=end, **shape | changes), folder)
    told.save(folder)
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_every_way_to_ship_a_family_has_its_weights_and_positions(family, tmp_path):
    source = model(family, tmp_path / "source")
    export(source, tmp_path / "whole", scratch=tmp_path / "scratch")
    for number, way in enumerate(WAYS):
        found = compare_weights(source, made(tmp_path / "whole", tmp_path / str(number), **way))
        # Five of each of four layers, head and embedding.
        assert found.matrices == 5 * 4 + 2, way
        assert (found.misplaced, found.missing) == (0, ())
        assert found.cosine > (0.9999 if way.get("precision") else 0.98), way
        assert found.turned < MOST_TURNED / 1000


def test_weights_whose_file_has_two_names_are_read(tmp_path):
    """As those of a bundle: its files are links to the store's."""
    source = model("llama", tmp_path / "source", max_position_embeddings=2048)
    export(source, tmp_path / "shipped", scratch=tmp_path / "scratch")
    data = tmp_path / "shipped" / "model.onnx.data"
    (tmp_path / "another-name").hardlink_to(data)
    assert compare_weights(source, tmp_path / "shipped").missing == ()
    data.rename(tmp_path / "elsewhere")
    data.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BadInput, match="lead out of the folder"):
        compare_weights(source, tmp_path / "shipped")


def test_another_model_of_the_same_shape_is_another(tmp_path):
    source = model("llama", tmp_path / "source")
    other = load_model(source)
    for weight in other.parameters():
        weight.data = weight.data.roll(1, dims=0)
    other.config.rope_parameters["rope_theta"] = 2e4
    save_model(other, tmp_path / "other", tokenizer_from=source)
    export(tmp_path / "other", tmp_path / "shipped", scratch=tmp_path / "scratch")
    found = compare_weights(source, tmp_path / "shipped")
    assert found.misplaced > 1000
    assert "is more like" in found.where
    assert found.turned > MOST_TURNED


def test_a_layer_too_few_is_told_and_so_is_another_width(tmp_path):
    source = model("llama", tmp_path / "source")
    export(model("llama", tmp_path / "shallow", num_hidden_layers=3), tmp_path / "a", scratch=tmp_path / "s")
    assert compare_weights(source, tmp_path / "a").missing == tuple(
        f"layers.3.{name}" for name in ("attn.o_proj", "attn.qkv_proj", "mlp.down_proj", "mlp.gate_proj", "mlp.up_proj")
    )
    narrow = np.ones((8, 6), dtype=np.float32)
    (found,) = likenesses(np.ones((8, 7), np.float32), narrow, "m")
    assert found == (8, 0.0, "m, which is (8, 6) and was (8, 7)")


SEEDS = st.integers(0, 2**31)


@given(SEEDS, st.sampled_from([0.0, 0.5]))
def test_scales_of_rows_and_columns_and_zeros_do_not_matter(seed, zeros):
    rng = np.random.default_rng(seed)
    source = rng.normal(size=(40, 56)).astype(np.float32)
    scaled = source * rng.uniform(0.2, 5, (40, 1)) * rng.uniform(0.2, 5, (1, 56))
    scaled[rng.random(scaled.shape) < zeros] = 0
    for one in likenesses(source, scaled.astype(np.float32), "m"):
        assert one.misplaced == 0
        assert one.cosine > 0.8


@given(SEEDS, st.booleans())
def test_two_rows_or_columns_in_each_others_place_do(seed, columns):
    rng = np.random.default_rng(seed)
    source = rng.normal(size=(64, 72)).astype(np.float32)
    shipped = source.copy()
    turned = shipped.T if columns else shipped
    turned[[3, 5]] = turned[[5, 3]]
    rows, turned_ones = likenesses(source, shipped, "m")[:: -1 if columns else 1]
    kind = "column" if columns else "row"
    assert (rows.misplaced, rows.where) == (2, f"{kind} 3 of m, which is more like 5")
    assert (turned_ones.misplaced, turned_ones.cosine > 0.8) == (0, True)


@given(SEEDS)
def test_a_column_that_is_lost_in_noise_is_still_in_its_place(seed):
    rng = np.random.default_rng(seed)
    source = rng.normal(size=(512, 64)).astype(np.float32)
    shipped = source + np.where(np.arange(64) == 9, rng.normal(size=(512, 64)) * 2.5, 0).astype(np.float32)
    columns = likenesses(source, shipped, "m")[1]
    assert columns.misplaced == 0
    assert 0.2 < columns.cosine < 0.6
    assert columns.where == "column 9 of m"
