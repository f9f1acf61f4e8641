"""What a server is started with: what cannot be done is told in a line before it begins; and what signals change."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import onnx
import pytest

from slmops import engines, free_memory
from slmops.bundle import write_bundle
from slmops.bundle.manifest import MANIFEST, MODEL
from slmops.bundle.write import place_bundle
from slmops.errors import BadInput
from slmops.pipeline.files import sha256
from slmops.serve.process import Options, run
from slmops.tasks import Generation
from tests.serve.test_swap import another


def options(bundle: Path, **more) -> Options:
    told = {"host": "127.0.0.1", "port": 0, "keys": None, "threads": 1, "slots": 2, "queue": 4, "connections": None}
    rest = {
        "grace_s": 1.0,
        "open_to_all": False,
        "watch": False,
        "log_content": False,
        "engine": None,
        "streams": 1,
        "adapters": 4,
    }
    return Options(bundle=bundle, **{**told, **rest, **more})


def refused(bundle: Path, **more) -> BadInput:
    """Why a server is not started; its ending code is that of bad input."""
    with pytest.raises(BadInput) as error:
        run(options(bundle, **more), started=lambda *_told: pytest.fail("it was started"))
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 2
    return error.value


@pytest.fixture
def bundle(writer, tmp_path) -> Path:
    """One to be spoilt."""
    return Path(shutil.copytree(writer, tmp_path / "bundle"))


def told_anew(bundle: Path, name: str) -> None:
    """Let the manifest say what a file is now."""
    path = bundle / MANIFEST
    content = json.loads(path.read_text())
    file = bundle / name
    content["files"][name] = {"sha256": sha256(file), "size": file.stat().st_size}
    write(path, json.dumps(content).encode())


def write(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def test_what_is_no_whole_bundle(bundle):
    weights = bundle / MODEL / "model.onnx.data"
    content = weights.read_bytes()
    write(weights, content[:-1])
    assert "bytes instead of" in str(refused(bundle))
    write(weights, content[:-1] + bytes([content[-1] ^ 1]))
    assert "was changed after it was written" in str(refused(bundle))
    weights.unlink()
    assert "is missing" in str(refused(bundle))
    (bundle / MANIFEST).unlink()
    assert "is not a bundle" in str(refused(bundle))


def test_a_newer_format(bundle):
    content = json.loads((bundle / MANIFEST).read_text())
    write(bundle / MANIFEST, json.dumps({**content, "format": 99}).encode())
    error = refused(bundle)
    assert "has format 99" in str(error)
    assert "--upgrade slmops" in str(error.hint)


def test_a_model_of_another_kind(bundle):
    """One that the runtime loads, and that has no cache."""
    folder = bundle / MODEL
    ids = onnx.helper.make_tensor_value_info("input_ids", onnx.TensorProto.INT64, ["rows", "n"])
    out = onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.INT64, ["rows", "n"])
    node = onnx.helper.make_node("Identity", ["input_ids"], ["logits"])
    graph = onnx.helper.make_graph([node], "other", [ids], [out])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9)
    write(folder / "model.onnx", model.SerializeToString())
    told_anew(bundle, f"{MODEL}/model.onnx")
    error = refused(bundle)
    assert "no product makes `logits`" in str(error)
    assert "export it again" in str(error.hint)
    write(folder / "model.onnx", b"no graph at all")
    told_anew(bundle, f"{MODEL}/model.onnx")
    assert "cannot be loaded" in str(refused(bundle))


def test_a_model_that_is_larger_than_memory(bundle):
    weights = bundle / MODEL / "model.onnx.data"
    weights.chmod(0o644)
    os.truncate(weights, 2**43)
    content = json.loads((bundle / MANIFEST).read_text())
    content["files"][f"{MODEL}/model.onnx.data"]["size"] = 2**43
    write(bundle / MANIFEST, json.dumps(content).encode())
    error = refused(bundle)
    assert "8796.1 GB" in str(error)
    assert "GB are free" in str(error)


def test_memory_is_what_the_control_group_leaves(tmp_path, monkeypatch):
    group = tmp_path / "pod" / "container"
    group.mkdir(parents=True)
    (tmp_path / "own").write_text("0::/pod/container\n")
    for folder, most in ((group, "max"), (group.parent, "1000")):
        (folder / "memory.max").write_text(f"{most}\n")
        (folder / "memory.current").write_text("900\n")
        (folder / "memory.stat").write_text("anon 500\ninactive_file 300\n")
    monkeypatch.setattr(free_memory, "_GROUPS", tmp_path)
    monkeypatch.setattr(free_memory, "_OWN_GROUP", tmp_path / "own")
    assert free_memory.free_bytes() == 400


def test_an_engine_that_is_not_installed(tiny_onnx, tmp_path, monkeypatch):
    install = engines._PACKAGES["llama.cpp"][1]
    monkeypatch.setitem(engines._BATCH_PACKAGES, "llama.cpp", ("no_such_package", install))
    model = tmp_path / "model"
    shutil.copytree(tiny_onnx, model)
    (model / "model.gguf").write_bytes(b"GGUF")
    told = {"task": Generation(None, 8).describe(), "lineage": {}, "evidence": {}, "model_folder": model}
    write_bundle(tmp_path / "bundle", name="tiny", version="1", engine="llama.cpp", **told)
    error = refused(tmp_path / "bundle")
    assert "llama.cpp is not installed" in str(error)
    assert "pip install 'slmops[llamacpp]'" in str(error.hint)


def test_what_cannot_be_listened_on(writer, monkeypatch):
    assert "cannot listen on 192.0.2.1" in str(refused(writer, host="192.0.2.1", open_to_all=True))
    assert "cannot listen on nowhere.invalid" in str(refused(writer, host="nowhere.invalid", open_to_all=True))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    error = refused(writer, connections=hard)
    assert f"{hard} connections are more than" in str(error)
    assert "ulimit -n" in str(error.hint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    assert "not by grpc" in str(refused(writer))


def test_a_signal_reads_keys_and_bundle_again(writer, tiny_onnx, tmp_path):
    keys, place = tmp_path / "keys", tmp_path / "served"
    place_bundle(writer, place)
    keys.write_text("the-key-of-yesterday\n")
    keys.chmod(0o600)
    command = [sys.executable, "-m", "slmops.cli.main", "serve", str(place), "--port", "0", "--threads", "1"]
    with subprocess.Popen(
        [*command, "--api-key-file", str(keys)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stderr
        address = process.stderr.readline().split(" at ")[1].strip()

        def status(key: str) -> int:
            told = urllib.request.Request(f"{address}/models", headers={"Authorization": f"Bearer {key}"})  # noqa: S310
            try:
                with urllib.request.urlopen(told, timeout=60) as response:  # noqa: S310 - loopback
                    return response.status
            except urllib.error.HTTPError as error:
                return error.code

        def said() -> dict:
            return json.loads(process.stdout.readline())

        assert (status("the-key-of-yesterday"), said()["status"]) == (200, 200)
        keys.write_text("the-key-of-today\n")
        place_bundle(another(tmp_path / "other", tiny_onnx), place)
        process.send_signal(signal.SIGHUP)
        assert (said()["event"], said()["event"]) == ("keys_read", "bundle_changed")
        assert (status("the-key-of-yesterday"), status("the-key-of-today")) == (401, 200)
        assert (said()["status"], said()["status"]) == (401, 200)
        keys.write_text("short\n")
        process.send_signal(signal.SIGHUP)
        assert (said()["event"], said()["event"]) == ("keys_refused", "bundle_unchanged")
        assert status("the-key-of-today") == 200
        process.terminate()
        assert process.wait(60) == 0
