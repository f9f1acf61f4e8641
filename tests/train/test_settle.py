"""What is left open of a training is decided by the memory, and leaves its weights as they are."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slmops.errors import BadInput
from slmops.models.source import load_model
from slmops.recipe.objective import ForwardKl
from slmops.recipe.training import Optimisation, TrainSettings
from slmops.train import precision
from slmops.train.examples import in_pieces
from slmops.train.forecast import forecast
from slmops.train.memory import Memory, needed
from slmops.train.objectives.observe import TeacherModel
from slmops.train.on_policy import OwnAnswers
from slmops.train.settle import settled
from slmops.train.trainer import train
from tests.train.test_trainer import Noting, changed, examples, weights

AUTO = {"accumulate": "auto", "checkpoint_activations": "auto"}


def need(settings: Optimisation, pieces: int) -> Memory:
    return Memory(10, 10, 10, (20 if settings.checkpoint_activations else 80) // pieces)


@pytest.mark.parametrize(
    ("available", "again", "pieces"),
    [(110, False, 1), (109, False, 2), (50, False, 4), (40, False, 8), (39, True, 4), (32, True, 8), (1, True, 8)],
)
def test_a_batch_is_halved_until_it_fits_and_then_activations_are_computed_again(available, again, pieces):
    found = settled(Optimisation(**AUTO), need, available, can=True, rows=8)
    assert (found.settings.checkpoint_activations, found.pieces) == (again, pieces)
    assert found.settings.accumulate == 1
    assert found.fits == (available > 31)


def test_what_a_recipe_says_is_not_decided_for_it():
    asked = Optimisation(accumulate=3)
    found = settled(asked, need, 1, can=True, rows=8)
    assert (found.settings, found.pieces, found.fits) == (asked, 1, False)
    cannot = settled(Optimisation(**AUTO), need, 1, can=False, rows=8)
    assert (cannot.settings.checkpoint_activations, cannot.pieces) == (False, 8)


@given(st.lists(st.integers()), st.integers(1, 40))
def test_pieces_are_the_batch_in_order(batch, count):
    pieces = in_pieces(batch, count)
    assert [row for piece in pieces for row in piece] == batch
    assert len(pieces) == max(1, min(count, len(batch)))
    assert max(map(len, pieces)) - min(map(len, pieces)) <= 1


def tight(tiny, settings: Optimisation, pieces: int) -> int:
    """Memory for batches in so many pieces and no fewer."""
    model, rows = load_model(tiny.folder, dtype=torch.float32), examples()
    batch = [list(range(settings.batch_tokens // 12))]
    return needed(model, batch, rows, settings, pieces=pieces).total


def test_a_training_in_pieces_gives_the_same_weights(tiny, tmp_path, monkeypatch):
    settings, progress = changed(epochs=1, batch_tokens=96), Noting()
    whole = train(tiny.folder, examples(), settings, work=tmp_path / "whole", seed=1)
    available = tight(tiny, settings, 4)
    monkeypatch.setattr("slmops.train.made.available_bytes", lambda: available)
    auto = settings.model_copy(update=AUTO)
    cut = train(tiny.folder, examples(), auto, work=tmp_path / "cut", seed=1, progress=progress)
    assert cut.figures["batch_pieces"] == 4
    assert cut.figures["activations"] == "kept"
    assert [note for note in progress.notes if "each batch goes through in 4 pieces" in note]
    assert [h["step"] for h in cut.history] == [h["step"] for h in whole.history]
    assert cut.history[-1]["text"] == pytest.approx(whole.history[-1]["text"], rel=1e-4)
    for name, value in weights(whole.model).items():
        torch.testing.assert_close(cut.model.state_dict()[name], value, rtol=1e-3, atol=1e-4, msg=name)


def test_answers_of_its_own_go_through_in_pieces_too(tiny, tmp_path, monkeypatch):
    settings, own = changed(epochs=1, batch_tokens=96), OwnAnswers(0.5, 1.0, 4, tiny.tokenizer.end_ids)
    trained = []
    judged = {"on_policy": own, "objective": [ForwardKl(logits="online")], "teacher": TeacherModel(tiny.folder)}
    beside = sum(weight.nbytes for weight in load_model(tiny.folder).parameters())
    for available in (10**12, tight(tiny, settings, 2) + beside):
        monkeypatch.setattr("slmops.train.made.available_bytes", lambda available=available: available)
        auto = settings.model_copy(update={"accumulate": "auto"})
        work = tmp_path / str(available)
        trained.append(train(tiny.folder, examples(), auto, work=work, seed=1, **judged))
    assert [one.figures["batch_pieces"] for one in trained] == [1, 2]
    assert trained[0].figures["on_policy_tokens"] == trained[1].figures["on_policy_tokens"] > 0


def test_the_other_arithmetic_is_taken_only_where_the_faster_does_not_fit(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "measured_rates", lambda _hidden, _inner: (10.0, 13.0))
    settings = changed(epochs=1, precision="auto", batch_tokens=32)
    rows, bf16 = examples(), load_model(tiny.folder, dtype=torch.bfloat16)
    batches = [[0, 1]]
    fast = needed(bf16, batches, rows, settings).total
    # Masters make bf16 need more than fp32, where all weights move.
    slow = needed(load_model(tiny.folder, dtype=torch.float32), batches, rows, settings).total
    assert slow < fast
    for available, name in ((fast, "bf16"), (slow, "fp32")):
        monkeypatch.setattr("slmops.train.made.available_bytes", lambda available=available: available)
        progress = Noting()
        trained = train(tiny.folder, rows, settings, work=tmp_path / name, seed=1, progress=progress)
        assert trained.figures["precision"] == name
        assert any("bf16 would not fit" in note for note in progress.notes) == (name == "fp32")


def test_a_plan_tells_what_is_decided_and_what_would_be_refused(tiny, monkeypatch):
    settings = changed(batch_tokens=96)
    for available, said in ((10**12, "whole"), (tight(tiny, settings, 2), "in 2 pieces")):
        monkeypatch.setattr("slmops.train.forecast.available_bytes", lambda _processes, available=available: available)
        told = forecast(tiny.folder, examples(), settings.model_copy(update=AUTO), None, seed=1)
        assert said in told.choices
        assert told.refused is None
    told = forecast(tiny.folder, examples(), settings, None, seed=1)
    assert told.refused is not None
    assert told.refused.startswith("set accumulate: auto: then it needs about")


def test_where_weights_alone_do_not_fit_a_method_is_named_that_does(tiny, tmp_path, monkeypatch):
    settings = changed(batch_tokens=96)
    model = load_model(tiny.folder, dtype=torch.float32)
    fixed = needed(model, [[0]], examples(), settings, pieces=99)
    monkeypatch.setattr("slmops.train.made.available_bytes", lambda: fixed.weights + fixed.gradients + fixed.optimiser)
    with pytest.raises(BadInput, match="training needs about") as error:
        train(tiny.folder, examples(), settings, work=tmp_path, seed=1)
    assert (error.value.hint or "").startswith("set method: lora")
    monkeypatch.setattr("slmops.train.made.available_bytes", lambda: 1)
    with pytest.raises(BadInput) as error:
        train(tiny.folder, examples(), settings, work=tmp_path, seed=1)
    assert "train a smaller model" in (error.value.hint or "")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"normalise": True}, "normalise"),
        ({"objective": [{"kind": "text", "class_weights": "balanced"}]}, "objective: text"),
        ({"method": "lora", "adapter": {"dropout": 0.1}}, "adapter.dropout"),
        ({"method": "lora", "backend": "olive"}, "backend: olive"),
    ],
)
def test_what_would_be_another_training_in_pieces_is_refused(given, said):
    with pytest.raises(ValueError, match=said):
        TrainSettings.model_validate({"accumulate": "auto", **given})
