"""Olive as a child process: what it could not do is told in its own words."""

from __future__ import annotations

import pytest

from slmops.errors import BadInput, SlmopsError
from slmops.olive.run import _event, _reason, run_olive, step_begun
from tests.runtimes import needs_olive


def test_a_run_that_fails_is_told_in_olives_words(tmp_path):
    needs_olive()
    said: list[str] = []
    asked = {"input_model": {"type": "HfModel", "model_path": "absent"}, "passes": {"tune": {"type": "NoSuchPass"}}}
    with pytest.raises(SlmopsError, match=r"Olive made no model: .*nosuchpass") as told:
        run_olive(asked, tmp_path, told=said.append, event=lambda *_: None)
    assert not isinstance(told.value, BadInput)
    assert said


def test_an_exit_without_a_word_is_an_error_too(tmp_path, monkeypatch):
    monkeypatch.setenv("SLMOPS_OLIVE_PYTHON", "/bin/true")
    with pytest.raises(SlmopsError, match="it said nothing"):
        run_olive({}, tmp_path, told=lambda _: None, event=lambda *_: None)


@pytest.mark.parametrize(
    ("line", "happened"),
    [
        ("[lora.py:460:train_and_save_new_model] Running fine-tuning", ("begins", 0.0)),
        ("{'loss': '2.942', 'grad_norm': '1.783', 'epoch': '1.667'}", ("loss", 2.942)),
        ("{'train_runtime': '0.4111', 'epoch': '3'}", ("seconds", 0.4111)),
        ("{'loss': 'none'}", None),
        ("the loss fell", None),
    ],
)
def test_what_its_trainer_prints_is_read(line, happened):
    assert _event(line) == happened


def test_the_reason_is_the_last_error_that_it_named():
    assert _reason(["ValueError: no rows", "  ", "done"]) == "ValueError: no rows"
    assert _reason(["one", "two"]) == "two"


def test_a_checkpoint_counts_once_its_state_is_there(tmp_path):
    for step, whole in ((5, True), (20, True), (100, False)):
        place = tmp_path / "checkpoints" / f"checkpoint-{step}"
        place.mkdir(parents=True)
        if whole:
            (place / "trainer_state.json").write_text("{}")
    assert step_begun(tmp_path) == 20
