"""Who serves a bundle: the runtime that is asked for, where it runs the bundle's file, or the fastest."""

from __future__ import annotations

import json

import pytest

from slmops.bundle import open_bundle
from slmops.compress.convert import convert
from slmops.engines import load_running
from slmops.errors import BadInput
from slmops.recipe.compress import CompressSettings
from slmops.serve import fastest
from slmops.serve.fastest import choose, tokens_per_s
from tests.runtimes import needs
from tests.tagger import save_tagger


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "slmops" / "tokens_per_s.json"


def test_left_alone_it_is_served_by_what_it_was_measured_with(writer):
    assert choose(open_bundle(writer), None, streams=1) == "onnxruntime-genai"


def test_what_runs_other_files_is_refused(writer):
    with pytest.raises(BadInput, match=r"llama\.cpp cannot run what the bundle tiny holds") as error:
        choose(open_bundle(writer), "llama.cpp", streams=1)
    assert "--engine auto or onnxruntime-genai or openvino" in error.value.hint


def test_what_is_not_installed_is_refused_with_the_command(writer, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    monkeypatch.setattr("slmops.engines.find_spec", lambda _: None)
    with pytest.raises(BadInput, match="openvino is not installed") as error:
        choose(open_bundle(writer), "openvino", streams=1)
    assert error.value.hint == "pip install 'slmops[openvino]'"


def test_auto_takes_the_fastest_and_measures_once(writer, kept, monkeypatch):
    needs("openvino")
    bundle = open_bundle(writer, threads=1)
    speeds = {"onnxruntime-genai": iter([10.0, 30.0]), "openvino": iter([20.0, 25.0])}
    asked: list[str] = []

    def load(name, folder, *, slots, threads):
        asked.append(name)
        return name

    monkeypatch.setattr(fastest, "load_running", load)
    monkeypatch.setattr(fastest, "tokens_per_s", lambda name, _: next(speeds[name]))
    assert choose(bundle, "auto", streams=8) == "openvino"
    assert choose(bundle, "auto", streams=8) == "openvino"
    assert choose(bundle, "auto", streams=1) == "onnxruntime-genai", "another load is another question"
    assert asked == ["onnxruntime-genai", "openvino"] * 2
    assert len(json.loads(kept.read_text())) == 4
    kept.write_text("{")
    speeds |= {"onnxruntime-genai": iter([1.0]), "openvino": iter([2.0])}
    assert choose(bundle, "auto", streams=8) == "openvino", "a file that is damaged is measured anew"


def test_with_one_runtime_nothing_is_measured(writer, kept, monkeypatch):
    monkeypatch.setattr(fastest, "_is_installed", lambda name: name != "openvino")
    assert choose(open_bundle(writer), "auto", streams=8) == "onnxruntime-genai"
    assert not kept.exists()


def test_what_is_timed_is_run(tiny_onnx):
    running = load_running("onnxruntime-genai", tiny_onnx, slots=3, threads=1)
    assert tokens_per_s(running, 3) > 0
    assert running.begin(0, [1, 2, 3]) == 0


@pytest.mark.parametrize("runtime", ["onnxruntime-genai", "openvino"])
def test_of_a_model_that_marks_it_is_what_it_reads(tiny, tmp_path, runtime):
    needs(runtime)
    save_tagger(tiny.folder, tmp_path / "hf")
    settings = CompressSettings(precision="int4", algorithm="rtn")
    convert(tmp_path / "hf", tmp_path / "onnx", settings, scratch=tmp_path / "scratch")
    running = load_running(runtime, tmp_path / "onnx", slots=3, threads=1)
    assert tokens_per_s(running, 3) > 0
