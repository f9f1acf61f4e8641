"""The estimate is of the size of what autograd really keeps."""

import pytest
import torch

from slmops.models.rounding import Grid
from slmops.models.source import load_model
from slmops.recipe.training import Optimisation
from slmops.train import memory
from slmops.train.collate import collate
from slmops.train.examples import Example
from slmops.train.memory import activation_bytes, available_bytes, needed
from slmops.train.objectives.observe import answer_logits
from slmops.train.objectives.text import cross_entropy
from slmops.train.on_policy import OwnAnswers, Writer
from slmops.train.optimiser import MasterAdamW

ROWS = [Example(tuple(range(3, 43)), tuple(range(50, 60))) for _ in range(8)]


def kept_bytes(model: torch.nn.Module, shared: int = 0) -> int:
    """Bytes that autograd keeps of one batch, each piece of memory once and weights not at all."""
    own = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: dict[int, int] = {}
    alive = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)  # or its memory would be given to the next one
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        batch = collate(ROWS, pad=0) | ({"shared": torch.tensor(shared)} if shared else {})
        loss = cross_entropy(answer_logits(model.train(), batch), batch["target"])
    assert loss.requires_grad
    return sum(kept.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_estimate_of_activations_is_near_what_is_kept(tiny, dtype):
    model = load_model(tiny.folder, dtype=dtype)
    estimate = activation_bytes(model, rows=8, length=50, answer_tokens=80, settings=Optimisation())
    assert 0.6 < estimate / kept_bytes(model) < 1.6


def test_what_rows_begin_with_is_estimated_once(tiny):
    model = load_model(tiny.folder)
    every, once = kept_bytes(model), kept_bytes(model, shared=30)
    rows = activation_bytes(model, rows=8, length=20, behind=30, answer_tokens=80, settings=Optimisation())
    estimate = rows + activation_bytes(model, rows=1, length=30, answer_tokens=0, settings=Optimisation())
    assert once < 0.8 * every
    assert 0.6 < estimate / once < 1.6
    found, apart = (needed(model, [range(8)], ROWS, Optimisation(), alone=alone) for alone in (False, True))
    assert found.activations < 0.8 * apart.activations


def test_recomputed_activations_keep_less_and_are_estimated_as_less(tiny):
    model = load_model(tiny.folder)
    every = kept_bytes(model)
    model.activation_checkpointing_enable()
    assert kept_bytes(model) < 0.6 * every
    sizes = {"rows": 8, "length": 50, "answer_tokens": 80}
    whole, again = (
        activation_bytes(model, **sizes, settings=Optimisation(checkpoint_activations=again)) for again in (False, True)
    )
    assert again < whole


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_weights_gradients_and_optimiser_are_counted_to_the_byte(tiny, dtype):
    model = load_model(tiny.folder, dtype=dtype)
    model.get_input_embeddings().weight.requires_grad_(False)
    moving = [weight for weight in model.parameters() if weight.requires_grad]
    grids = dict.fromkeys(moving[:2], Grid(4, 32))
    optimiser = MasterAdamW(moving, lr=1e-3, weight_decay=0.0, rounding=grids)
    for weight in moving:
        weight.grad = torch.zeros_like(weight)
    optimiser.step()
    of_the_model = {weight.data_ptr() for weight in moving}
    masters = [master for master in optimiser.masters if master.data_ptr() not in of_the_model]
    state = [*masters, *(value for s in optimiser.state.values() for value in s.values() if value.dim())]
    found = needed(model, [[0, 1]], ROWS, Optimisation(), on_grid=grids)
    assert found.optimiser == sum(tensor.nbytes for tensor in state)
    assert found.weights == sum(weight.nbytes for weight in model.parameters())
    float32_copies = 0 if dtype == torch.float32 else 4
    assert found.gradients == sum(weight.numel() * (weight.itemsize + float32_copies) for weight in moving)


def test_the_largest_batch_counts(tiny):
    model = load_model(tiny.folder)
    one, two = (
        needed(model, batches, ROWS, Optimisation(), alone=True).activations for batches in ([[0]], [[0], [1, 2], [3]])
    )
    assert two == 2 * one


def test_answers_that_are_not_yet_written_count_as_the_longest(tiny):
    model, batches = load_model(tiny.folder), [[0, 1], [2, 3], [4]]
    writer = Writer(OwnAnswers(1.0, 1.0, 60, frozenset()), len(batches), seed=0)
    long = [Example(row.prompt, (5,) * 60) for row in ROWS]
    settings = Optimisation(freeze_layers=1)
    planned = needed(model, batches, ROWS, settings)
    found = needed(model, batches, ROWS, settings, writer=writer, whole=True, alone=True, teacher_bytes=7)
    assert found.activations == needed(model, batches, long, settings).activations > planned.activations
    # Still layers are run again in every pass then.
    assert planned.states > found.states == 0
    assert found.total - found.activations == planned.total - planned.activations - planned.states + 7
    writer.batches = frozenset()
    assert needed(model, batches, ROWS, settings, writer=writer).activations == planned.activations


def test_processes_share_what_is_available(monkeypatch):
    monkeypatch.setattr(memory.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(memory, "free_bytes", lambda: 1000)
    assert available_bytes() == 1000
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert available_bytes() == 250


def test_a_batch_in_pieces_needs_what_its_largest_piece_needs(tiny):
    model = load_model(tiny.folder)
    whole, half, rows = (
        needed(model, [range(8)], ROWS, Optimisation(), pieces=n, alone=True).activations for n in (1, 2, 99)
    )
    assert whole == 2 * half == 8 * rows
