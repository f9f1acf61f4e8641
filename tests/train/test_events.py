"""Event files for TensorBoard: refused in time where it is not installed, real where it is."""

import importlib.util

import pytest

from slmops.errors import BadInput
from slmops.train import events
from slmops.train.stage import FitSettings
from slmops.train.trainer import train
from tests.train.test_trainer import SETTINGS, changed, examples


def test_without_the_package_it_is_refused_before_any_work(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(events, "find_spec", lambda _name: None)
    FitSettings(optimisation=SETTINGS).check_surroundings()
    with pytest.raises(BadInput, match="needs the package tensorboard") as error:
        FitSettings(optimisation=changed(tensorboard=True)).check_surroundings()
    assert error.value.hint == "pip install 'slmops[tensorboard]'"
    with pytest.raises(BadInput, match="needs the package tensorboard"):
        train(tiny.folder, examples(), changed(tensorboard=True), work=tmp_path / "work", seed=1)
    assert not (tmp_path / "work").exists()


def test_a_run_below_a_launcher_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(BadInput, match="a run is one process"):
        FitSettings(optimisation=SETTINGS).check_surroundings()


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed")
def test_every_step_is_in_the_event_files(tiny, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(tiny.folder, examples(), changed(epochs=1, tensorboard=True), work=tmp_path, seed=1)
    found = EventAccumulator(str(tmp_path / events.FOLDER)).Reload()
    assert set(found.Tags()["scalars"]) == {"train/text", "gradient_norm"}
    assert [event.step for event in found.Scalars("train/text")] == [1, 2, 3, 4, 5]
