"""What a model forgets is measured beside its training, which it leaves as it is."""

import json
import logging
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from slmops.errors import BadInput
from slmops.models.source import load_model
from slmops.pipeline.stage import Context
from slmops.recipe.training import Optimisation
from slmops.train.forgetting import Forgetting, General, general, nats_of
from slmops.train.kept import train_and_save
from tests.train.test_trainer import Noting, changed, examples


def trained(tiny, folder: Path, settings: Optimisation, **asked: object) -> tuple[dict, dict, list[str]]:
    """Figures, weights and notes of a training."""
    for name in ("out", "work"):
        (folder / name).mkdir(parents=True)
    progress = Noting()
    context = Context(
        out=folder / "out", work=folder / "work", seed=1, progress=progress, log=logging.getLogger("test")
    )
    figures = train_and_save(tiny.folder, examples(), settings, context, rounding=None, validation=(), **asked)
    return figures, load_file(folder / "out/model/model.safetensors"), progress.notes


def test_a_training_is_the_same_whether_it_is_asked_or_not(tiny, tmp_path):
    alone, weights, _ = trained(tiny, tmp_path / "alone", changed(epochs=2))
    asked, same, _ = trained(tiny, tmp_path / "asked", changed(epochs=2), measures_forgetting=True)
    assert weights.keys() == same.keys()
    assert all(torch.equal(weights[name], same[name]) for name in weights)
    assert alone["loss_text"] == asked["loss_text"]
    assert "general_perplexity_before" not in alone


def test_one_that_moves_far_forgets_and_is_told_what_to_change(tiny, tmp_path):
    figures, _, notes = trained(tiny, tmp_path, changed(epochs=8, learning_rate=2e-2), measures_forgetting=True)
    assert figures["general_perplexity_after"] > 1.3 * figures["general_perplexity_before"]
    assert figures["general_bits_per_byte_after"] > figures["general_bits_per_byte_before"]
    assert figures["forgetting_at_step"] == 40
    (said,) = [note for note in notes if note.startswith("warning: forgetting")]
    assert "lower learning_rate, take method: lora" in said


def test_one_that_hardly_moves_forgets_nothing(tiny, tmp_path):
    figures, _, notes = trained(tiny, tmp_path, changed(epochs=1, learning_rate=1e-9), measures_forgetting=True)
    assert figures["general_perplexity_after"] == pytest.approx(figures["general_perplexity_before"], rel=1e-3)
    assert "forgetting_at_step" not in figures
    assert not [note for note in notes if "forgetting" in note]


def test_the_text_is_the_same_in_every_run_and_after_a_kill(tiny, tmp_path):
    torch.manual_seed(5)
    chances = torch.random.get_rng_state()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one, two = (general(tiny.folder, None, tmp_path / name, Noting()) for name in ("one", "two"))
    assert one == two
    assert torch.equal(torch.random.get_rng_state(), chances)
    kept = tmp_path / "one" / "general.json"
    kept.write_text(json.dumps({"passages": [[1, 2]], "bytes": 3, "nats": [4.0]}))
    assert general(tiny.folder, None, tmp_path / "one", Noting()) == General([[1, 2]], 3, [4.0])


def test_perplexity_is_that_of_the_words_of_a_file(tiny, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("Where is order 4711?\n\nWhat a lovely day it is today\n")
    found = general(tiny.folder, text, tmp_path, Noting())
    (passage,) = found.passages
    with torch.inference_mode():
        model = load_model(tiny.folder)
        loss = model(torch.tensor([passage]), labels=torch.tensor([passage])).loss
    assert found.nats == [pytest.approx(float(loss) * found.tokens, rel=1e-4)]
    assert nats_of(model, found.passages) == pytest.approx(found.nats)
    text.write_text("\n")
    (tmp_path / "general.json").unlink()
    with pytest.raises(BadInput, match="holds no text"):
        general(tiny.folder, text, tmp_path, Noting())


@given(st.lists(st.floats(1, 100), min_size=2, max_size=40), st.floats(0.0, 3.0))
def test_a_rise_that_is_the_same_everywhere_is_told_from_a_quarter_on(nats, rise):
    tokens = 10 * len(nats)
    found = Forgetting(nats, [one + 10 * rise for one in nats], tokens, tokens)
    figures = found.figures()
    ratio = figures["general_perplexity_after"] / figures["general_perplexity_before"]
    assert ratio == pytest.approx(math.exp(rise), rel=1e-6)
    if abs(rise - 0.25) > 1e-6:
        assert (found.warning(full=True) is not None) == (rise > 0.25)


def test_a_rise_within_its_error_is_not_told():
    assert Forgetting([10.0, 10.0, 10.0], [40.0, 5.0, 10.0], 30, 30).warning(full=False) is None
