"""A graph from outside asks for no library and for no file that is not beside it."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
import pytest
from onnx import helper

from slmops.errors import BadInput
from slmops.olive.onnx_check import check_graph


@pytest.fixture
def graph(tiny_onnx: Path, tmp_path: Path) -> Path:
    for name in ("model.onnx", "model.onnx.data"):
        shutil.copyfile(tiny_onnx / name, tmp_path / name)
    return tmp_path / "model.onnx"


def changed(path: Path, tensor_entry: tuple[str, str]) -> Path:
    model = onnx.load(path, load_external_data=False)
    tensor = next(t for t in model.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL)
    key, value = tensor_entry
    (entry,) = (entry for entry in tensor.external_data if entry.key == key)
    entry.value = value
    onnx.save(model, path)
    return path


def test_a_model_of_the_builder_passes(graph):
    assert check_graph(graph) == {"model.onnx.data"}


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (("location", "../secret"), "outside of its folder"),
        (("location", "/etc/passwd"), "outside of its folder"),
        (("location", "absent.data"), "cannot be found"),
        (("length", "99999999999"), "cut short|end at byte"),
        (("offset", "-4"), "end at byte"),
        (("offset", "x"), "cannot be found"),
    ],
)
def test_weights_lie_beside_it_and_are_whole(graph, entry, says):
    with pytest.raises(BadInput, match=says):
        check_graph(changed(graph, entry))


def test_operators_of_others_are_refused_wherever_they_stand(graph):
    model = onnx.load(graph, load_external_data=False)
    inner = helper.make_graph([helper.make_node("Run", [], ["x"], domain="their.library")], "inner", [], [])
    model.graph.node.append(helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner))
    onnx.save(model, graph)
    with pytest.raises(BadInput, match=r"Run is an operator of 'their\.library'"):
        check_graph(graph)


@pytest.mark.parametrize("content", [b"", b"\xff\xff\xff", b"no graph at all"])
def test_what_is_no_graph_is_refused(graph, content):
    graph.write_bytes(content)
    with pytest.raises(BadInput):
        check_graph(graph)
