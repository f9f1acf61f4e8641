"""Hidden states and attention maps: the formulas, their gradients, and which layers are compared."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from slmops.errors import BadInput
from slmops.recipe import objective as recipe
from slmops.train.objectives.attention import Attention, attention_kl, attention_mse
from slmops.train.objectives.base import Layers, Models, Shape, View
from slmops.train.objectives.hidden import Hidden, cosine, mse
from slmops.train.objectives.make import make_terms

MODELS = Models(student=Shape(4, 6, 2), teacher=Shape(10, 6, 2), cut_from=None, still=0)


def bound(term: recipe.Term, models: Models = MODELS) -> Hidden | Attention:
    (made,) = make_terms([term])
    assert isinstance(made, Hidden | Attention)
    made.bind(models)
    return made


def view(**layers: Layers) -> View:
    return View(torch.zeros(3, 5), torch.zeros(3, dtype=torch.long), **layers)


def states(layers: int, width: int, seed: int) -> dict[int, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {i: torch.randn(3, width, generator=generator, dtype=torch.float64) for i in range(layers)}


def maps(layers: int, heads: int, seed: int) -> dict[int, torch.Tensor]:
    """Attention over 4 positions, of which the last cannot be seen."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(layers, 3, heads, 4, generator=generator, dtype=torch.float64)
    scores[..., 3] = -torch.inf
    return dict(enumerate(scores.softmax(-1)))


def test_mse_and_cosine_are_their_formulas():
    ours, theirs = states(1, 6, 1)[0], states(1, 6, 2)[0]
    a, b = ours.numpy(), theirs.numpy()
    assert float(mse(ours, theirs)) == pytest.approx(((a - b) ** 2).mean())
    angles = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    assert float(cosine(ours, theirs)) == pytest.approx((1 - angles).mean())


def test_attention_distances_are_their_formulas():
    ours, theirs = maps(1, 2, 1)[0], maps(1, 2, 2)[0]
    p, q = theirs.numpy()[..., :3], ours.numpy()[..., :3]
    assert float(attention_kl(ours, theirs)) == pytest.approx((p * np.log(p / q)).sum(-1).mean())
    assert float(attention_mse(ours, theirs)) == pytest.approx(((p - q) ** 2).sum(-1).mean())
    assert float(attention_kl(theirs, theirs)) == 0


@pytest.mark.parametrize("distance", [mse, cosine])
def test_gradients_of_hidden_states(distance):
    ours, theirs = states(1, 6, 1)[0].requires_grad_(), states(1, 6, 2)[0]
    assert torch.autograd.gradcheck(lambda x: distance(x, theirs), (ours,))


@pytest.mark.parametrize("distance", [attention_kl, attention_mse])
def test_gradients_of_attention_maps(distance):
    theirs, scores = maps(1, 2, 2)[0], torch.randn(3, 2, 3, dtype=torch.float64, requires_grad=True)

    def of(scores: torch.Tensor) -> torch.Tensor:
        return distance(torch.nn.functional.pad(scores.softmax(-1), (0, 1)), theirs)

    assert torch.autograd.gradcheck(of, (scores,))


def test_hidden_is_the_mean_over_its_pairs():
    term = bound(recipe.HiddenTerm(student_layers=[1, 3], teacher_layers=[2, 9]))
    shown = Layers(states(4, 6, 1), states(10, 6, 2))
    expected = (mse(shown.student[1], shown.teacher[2]) + mse(shown.student[3], shown.teacher[9])) / 2
    assert float(term.loss(view(hidden=shown))) == pytest.approx(float(expected))
    assert not isinstance(term, torch.nn.Module) or list(term.parameters()) == []


def test_a_projection_is_learned_where_widths_differ():
    narrow = replace(MODELS, student=Shape(4, 3, 2))
    term = bound(recipe.HiddenTerm(distance="cosine"), narrow)
    assert isinstance(term, Hidden)
    assert term.projection is not None
    assert term.projection.weight.shape == (6, 3)
    ours = {i: state.requires_grad_() for i, state in states(4, 3, 1).items()}
    term.loss(view(hidden=Layers(ours, states(10, 6, 2)))).backward()
    assert term.projection.weight.grad is not None
    assert float(term.projection.weight.grad.abs().max()) > 0
    assert all(state.grad is not None for state in ours.values())
    with pytest.raises(BadInput, match="hidden: the student's hidden states have width 3, the teacher's 6") as error:
        bound(recipe.HiddenTerm(project=False), narrow)
    assert "project: true" in (error.value.hint or "")


def test_layers_are_matched_with_what_they_were_cut_from_or_evenly():
    cut = replace(MODELS, cut_from=[0, 4, 5, 9])
    assert bound(recipe.HiddenTerm(), cut).pairs == [(0, 0), (4, 1), (5, 2), (9, 3)]
    assert bound(recipe.HiddenTerm()).pairs == [(0, 0), (3, 1), (6, 2), (9, 3)]
    # Layers that do not move have nothing to learn.
    assert bound(recipe.HiddenTerm(), replace(cut, still=2)).pairs == [(5, 2), (9, 3)]
    assert bound(recipe.HiddenTerm(student_layers=[2]), cut).pairs == [(5, 2)]
    assert bound(recipe.AttentionTerm(), replace(cut, cut_from=[0, 1, 2, 3])).pairs == [(9, 3)]


@pytest.mark.parametrize("kind", [recipe.HiddenTerm, recipe.AttentionTerm])
@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        ([4], [0], r"student_layers: the student has no layer 4: it has 4 layers"),
        ([0, 1], [0, 10], r"teacher_layers: the teacher has no layer 10: it has 10 layers"),
    ],
)
def test_a_layer_out_of_range_is_refused(kind, ours, theirs, message):
    with pytest.raises(BadInput, match=message):
        bound(kind(student_layers=ours, teacher_layers=theirs))


def test_attention_is_compared_head_by_head_or_in_the_mean():
    shown = Layers(maps(4, 2, 1), maps(10, 2, 2))
    each = bound(recipe.AttentionTerm())
    assert float(each.loss(view(attention=shown))) == pytest.approx(
        float(attention_kl(shown.student[3], shown.teacher[9]))
    )
    fewer = replace(MODELS, student=Shape(4, 6, 1))
    with pytest.raises(BadInput, match="the student has 1 attention heads, the teacher 2") as error:
        bound(recipe.AttentionTerm(), fewer)
    assert "heads: mean" in (error.value.hint or "")
    mean = bound(recipe.AttentionTerm(heads="mean", distance="mse"), fewer)
    one = Layers(maps(4, 1, 1), shown.teacher)
    expected = attention_mse(one.student[3], one.teacher[9].mean(1, keepdim=True))
    assert float(mean.loss(view(attention=one))) == pytest.approx(float(expected))
