"""What rows begin with in common is read once: the same losses and gradients, for every kind of model and adapter."""

import pytest
import torch

from slmops.models.adapters.attach import attach
from slmops.models.source import load_model
from slmops.recipe.training import Optimisation
from slmops.recipe.tuning import Adapter
from slmops.train.collate import collate
from slmops.train.examples import Example
from slmops.train.loop import Loop
from slmops.train.objectives.observe import answer_logits
from slmops.train.objectives.text import cross_entropy
from slmops.train.shared import can_share, shared_tokens, states_behind
from slmops.train.trainer import train

BEGINNING = tuple(range(3, 15))
ADAPTERS = {
    "full": None,
    "lora": Adapter(method="lora", rank=4, alpha=8),
    "ia3": Adapter(method="ia3"),
    "bottleneck": Adapter(method="bottleneck", width=4),
    "prompt": Adapter(method="prompt", tokens=3),
}


def rows(count: int = 5) -> list[Example]:
    """Prompts of unlike length with one beginning; the first ends where the beginning does."""
    return [Example(BEGINNING + tuple(range(20, 20 + i)), (40 + i, 50 + i, 2)) for i in range(count)]


def loss_and_gradients(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> tuple[float, list[torch.Tensor]]:
    model.zero_grad()
    loss = cross_entropy(answer_logits(model, batch), batch["target"])
    loss.backward()
    return loss.item(), [weight.grad.clone() for weight in model.parameters() if weight.requires_grad]


@pytest.mark.parametrize("method", ADAPTERS)
def test_losses_and_gradients_are_those_of_rows_by_themselves(tiny, method):
    torch.manual_seed(0)
    model = load_model(tiny.folder).train()
    if adapter := ADAPTERS[method]:
        attach(model, adapter)
        with torch.no_grad():
            for weight in model.parameters():
                if weight.requires_grad:
                    weight.add_(torch.randn_like(weight), alpha=0.05)
    batch, shared = collate(rows(), pad=0), shared_tokens(rows())
    loss, gradients = loss_and_gradients(model, batch)
    same_loss, same = loss_and_gradients(model, {**batch, "shared": torch.tensor(shared)})
    assert shared == len(BEGINNING) - 1, "the last token of the shortest prompt says the answer's first"
    assert same_loss == pytest.approx(loss, rel=1e-5)
    assert any(gradient.abs().max() > 0 for gradient in gradients)
    for one, other in zip(same, gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


def test_the_beginning_goes_through_the_layers_in_one_row(tiny):
    model, seen = load_model(tiny.folder), []
    model.base_model.layers[0].register_forward_hook(lambda _module, given, _output: seen.append(given[0].shape[:2]))
    ids = collate(rows(), pad=0)["input_ids"]
    states = states_behind(model, ids, 11)
    assert seen == [(1, 11), (5, ids.shape[1] - 11)]
    whole = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    torch.testing.assert_close(states, whole[:, 11:], rtol=1e-4, atol=1e-5)


def test_a_pass_of_its_own_is_for_what_saves_something():
    assert shared_tokens(rows(1)) == 0
    assert shared_tokens([Example((3, *range(20, 60)), (2,)), Example((3, *range(30, 70)), (2,))]) == 0
    assert shared_tokens([Example((9, 1, 2), (2,)), Example((8, 1, 2), (2,))]) == 0


def test_dropout_draws_for_every_row_so_nothing_is_shared(tiny):
    model = load_model(tiny.folder)
    assert can_share(model)
    attach(model, Adapter(method="lora", rank=4, alpha=8, dropout=0.1))
    assert not can_share(model)


@pytest.mark.parametrize(("others", "shares"), [({}, True), ({"checkpoint_activations": True}, False)])
def test_training_shares_where_it_can_and_comes_to_the_same_weights(tiny, tmp_path, monkeypatch, others, shares):
    settings = Optimisation(epochs=2, batch_tokens=64, precision="fp32", learning_rate=1e-3, **others)
    collated, seen = Loop._collate, []
    monkeypatch.setattr(Loop, "_collate", lambda self, at: seen.append(collated(self, at)) or seen[-1])
    trained = train(tiny.folder, rows(8), settings, work=tmp_path / "shared", seed=1)
    assert any("shared" in batch for batch in seen) == shares
    monkeypatch.setattr("slmops.train.shared.can_share", lambda _: False)
    alone = train(tiny.folder, rows(8), settings, work=tmp_path / "alone", seed=1)
    for name, value in alone.model.state_dict().items():
        torch.testing.assert_close(trained.model.state_dict()[name], value, rtol=1e-3, atol=1e-4, msg=name)
