"""The grid that a student learns on is the one the runtime quantises to."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnxruntime.quantization.matmul_nbits_quantizer import quantize_matmul_4bits, quantize_matmul_8bits

from slmops.compress.convert import convert
from slmops.engines import load_engine
from slmops.models.rounding import Grid
from slmops.models.source import save_model
from slmops.recipe.compress import CompressSettings
from slmops.recipe.objective import TextTerm
from slmops.recipe.training import Optimisation, Rounding
from slmops.train.examples import Example
from slmops.train.trainer import train

SHAPES = st.tuples(st.integers(1, 12), st.integers(1, 150))
GRIDS = st.builds(Grid, st.sampled_from([4, 8]), st.sampled_from([16, 32, 64, 128]), st.booleans())


def weight(shape: tuple[int, int], seed: int) -> torch.Tensor:
    made = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.05
    made[0, : shape[1] // 2] = 0
    return made


def by_the_runtime(matrix: torch.Tensor, grid: Grid) -> np.ndarray:
    """What onnxruntime's kernel makes of `matrix` [out, in], back in float32."""
    (out, inputs), block, bits = matrix.shape, grid.block_size, grid.bits
    blocks = -(-inputs // block)
    padded = np.pad(matrix.numpy().T, ((0, blocks * block - inputs), (0, 0))).copy()
    packed = np.zeros((out, blocks, block * bits // 8), dtype="uint8")
    scales = np.zeros((out, blocks), dtype=np.float32)
    zeros = np.zeros((out, -(-blocks * bits // 8)), dtype="uint8")
    kernel = {4: quantize_matmul_4bits, 8: quantize_matmul_8bits}[bits]
    kernel(packed, padded, scales, zeros, block, out, inputs, grid.symmetric)
    steps, middles = (
        np.stack([each & 15, each >> 4], -1).reshape(out, -1).astype(int) if bits == 4 else each.reshape(out, -1)
        for each in (packed, zeros)
    )
    zero = 2 ** (bits - 1) if grid.symmetric else middles[:, :blocks, None]
    levels = steps.astype(np.float32).reshape(out, blocks, block) - zero
    return (levels * scales[..., None]).reshape(out, -1)[:, :inputs].astype(np.float32)


@given(SHAPES, GRIDS, st.integers(0, 99))
@settings(deadline=None)
def test_it_is_the_grid_of_the_runtime(shape, grid, seed):
    matrix = weight(shape, seed)
    np.testing.assert_allclose(grid(matrix).numpy(), by_the_runtime(matrix, grid), atol=1e-7)


@given(SHAPES, GRIDS, st.integers(0, 99))
@settings(deadline=None)
def test_a_weight_on_the_grid_stays_there(shape, grid, seed):
    once = grid(weight(shape, seed))
    torch.testing.assert_close(grid(once), once, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(by_the_runtime(once, grid), once.numpy(), atol=1e-7)


@pytest.mark.parametrize("block", [16, 64])
def test_a_student_comes_out_of_training_on_the_grid(tiny, tmp_path, block):
    rows = [Example((3, 4, 5, 6 + i), (20 + i, 40, 7)) for i in range(16)]
    optimisation = Optimisation(epochs=1, learning_rate=1e-3, batch_tokens=64, precision="fp32")
    model = train(
        tiny.folder,
        rows,
        optimisation,
        objective=[TextTerm()],
        rounding=Rounding(block_size=block, head="int4"),
        work=tmp_path,
        seed=1,
    ).model
    matrices = {name: value for name, value in model.named_parameters() if value.ndim == 2}
    assert matrices
    for name, matrix in matrices.items():
        kept = matrix.detach()
        torch.testing.assert_close(Grid(4, block)(kept), kept, rtol=1e-5, atol=0, msg=name)
        values = kept[0, :block].unique()
        assert len(values) <= 16
    assert not torch.equal(model.model.norm.weight, Grid(4, block)(model.model.norm.weight[None])[0])


def test_a_head_of_eight_bits_is_left_off_the_grid(tiny, tmp_path):
    rows = [Example((3, 4, 5, 6 + i), (20 + i, 40, 7)) for i in range(16)]
    optimisation = Optimisation(epochs=1, learning_rate=1e-3, batch_tokens=64, precision="fp32")
    model = train(tiny.folder, rows, optimisation, rounding=Rounding(), work=tmp_path, seed=1).model
    head, up = model.lm_head.weight.detach(), model.model.layers[0].mlp.up_proj.weight.detach()
    torch.testing.assert_close(Grid(4, 32)(up), up, rtol=1e-5, atol=0)
    assert (Grid(4, 32)(head) - head).abs().max() > 1e-3


def test_trained_on_the_grid_it_answers_alike_when_exported(tiny, tmp_path):
    (end,) = tiny.tokenizer.end_ids
    rows = [Example(tuple(tiny.prompt(text)), (*tiny.tokenizer.encode(a), end)) for text, a in tiny.pairs.items()]
    optimisation = Optimisation(epochs=30, learning_rate=3e-3, batch_tokens=128, precision="fp32")
    rounding = Rounding(block_size=32)
    model = train(tiny.folder, rows, optimisation, rounding=rounding, work=tmp_path / "work", seed=1).model
    save_model(model, tmp_path / "model", tokenizer_from=tiny.folder)
    convert(
        tmp_path / "model",
        tmp_path / "int4",
        CompressSettings(block_size=32, algorithm="rtn"),
        scratch=tmp_path / "scratch",
    )
    prompts, answers = [row.prompt for row in rows], [row.answer for row in rows]
    trained, shipped = (
        np.concatenate(load_engine(engine, tmp_path / folder, threads=1).score(prompts, answers))
        for engine, folder in (("transformers", "model"), ("onnxruntime-genai", "int4"))
    )
    assert trained.mean() > -0.2
    np.testing.assert_allclose(shipped, trained, atol=0.05)
