"""What a text on the command line stands for."""

from __future__ import annotations

from typing import ClassVar

import pytest

from slmops.bundle import AdapterPart, write_bundle
from slmops.errors import BadInput
from slmops.evaluate.subjects import Endpoint, Local, common_task, find_local, find_subjects
from slmops.progress import Silent
from slmops.tasks import Classification

TASK = Classification(("yes", "no"), None, 5)


@pytest.fixture
def find(tmp_path):
    return lambda *given, **keys: find_subjects(
        [str(text) for text in given], models=tmp_path / "models", keys=keys.get("keys", {}), progress=Silent()
    )


@pytest.fixture
def model(tmp_path):
    """A folder that looks like a model; finding one loads nothing."""

    def make(name: str, file: str):
        folder = tmp_path / name
        folder.mkdir()
        (folder / file).write_text("{}")
        (folder / "tokenizer.json").write_text("{}")
        return folder

    return make


def test_folders_are_known_by_what_they_hold(find, model, tmp_path):
    hf, onnx = model("hf", "config.json"), model("onnx", "genai_config.json")
    parts = {"name": "a", "version": "1", "engine": "onnxruntime-genai", "lineage": {}, "evidence": {}}
    write_bundle(tmp_path / "b", model_folder=onnx, task=TASK.describe(), **parts)
    found = find(hf, onnx, tmp_path / "b")
    assert [(one.name, one.engine) for one in found] == [
        ("hf", "transformers"),
        ("onnx", "onnxruntime-genai"),
        ("b", "onnxruntime-genai"),
    ]
    assert found[1].digest == found[2].digest, "the same model in and out of a bundle"
    assert common_task(found) == TASK.describe()
    assert str(tmp_path) not in str([one.describe() for one in found]), "where a folder lies is nobody's business"


def test_that_adapters_of_a_bundle_are_not_measured_is_told(model, tmp_path):
    class Told(Silent):
        notes: ClassVar[list[str]] = []

        def note(self, text: str) -> None:
            self.notes.append(text)

    (tmp_path / "a.onnx_adapter").write_bytes(b"anything")
    parts = {"name": "a", "version": "1", "engine": "onnxruntime-genai", "lineage": {}, "evidence": {}}
    adapters = {"refunds": AdapterPart(tmp_path / "a.onnx_adapter", TASK.describe())}
    write_bundle(
        tmp_path / "b",
        model_folder=model("onnx", "genai_config.json"),
        task=TASK.describe(),
        adapters=adapters,
        **parts,
    )
    find_subjects([str(tmp_path / "b")], models=tmp_path / "models", keys={}, progress=Told())
    (told,) = Told.notes
    assert "without its adapters: refunds" in told


def test_the_digest_follows_the_content(find, model):
    folder = model("hf", "config.json")
    before = find(folder)[0].digest
    (folder / "config.json").write_text('{"a": 1}')
    assert find(folder)[0].digest != before


def test_names_are_given_or_made_unique(find, model):
    folder = model("hf", "config.json")
    assert [one.name for one in find(f"big={folder}", folder, folder)] == ["big", "hf", "hf-2"]


def test_an_endpoint_and_its_key(find):
    keys = {"a.example": "sk-a", "b.example": "sk-b"}
    one, other = find("https://a.example/v1/#org/m", "http://b.example:80/v1#m", keys=keys)
    assert one == Endpoint("m", "https://a.example/v1", "org/m", "sk-a")
    assert (other.name, other.key) == ("m-2", "sk-b")
    assert "sk-a" not in repr(one)
    assert "sk-a" not in str(one.describe())


@pytest.mark.parametrize(
    ("given", "keys", "says"),
    [
        (["http://a/v1#m", "http://b/v1#m"], {"": "k"}, "one key, and endpoints at 2 hosts"),
        (["http://a/v1#m"], {"b": "k"}, "a key is given for b"),
        (["http://a:port/v1#m"], {}, "is no address"),
        (["http:///v1#m"], {}, "does not name a host"),
        (["org/model-on-the-hub"], {}, "does not exist"),
        ([], {}, "nothing to evaluate"),
    ],
)
def test_what_cannot_be_asked_is_refused(find, given, keys, says):
    with pytest.raises(BadInput, match=says):
        find(*given, keys=keys)


def test_likelihoods_need_a_model_here(tmp_path):
    with pytest.raises(BadInput, match="is an endpoint"):
        find_local("http://a/v1#m", models=tmp_path, progress=Silent())


def test_bundles_of_different_tasks_have_none_in_common():
    one = Local("one", "e", None, "d", TASK.describe())
    other = Local("other", "e", None, "d", Classification(("a", "b"), None, 5).describe())
    assert common_task([one, Endpoint("x", "u", "m"), one]) == TASK.describe()
    with pytest.raises(BadInput, match="one and other are bundles of different tasks"):
        common_task([one, other])
    with pytest.raises(BadInput, match="nothing says"):
        common_task([Endpoint("x", "u", "m")])
