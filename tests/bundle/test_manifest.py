"""A bundle is trusted only when it is exactly what was written."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmops.bundle import manifest as bundle_manifest
from slmops.bundle import open_bundle
from slmops.bundle.manifest import FileRecord, Generation, Manifest, read_manifest
from slmops.errors import BadInput


def change(folder: Path, edit: Callable[[dict], object]) -> None:
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def outside(name: str) -> Callable[[Path], None]:
    def harm(folder: Path) -> None:
        change(folder, lambda content: content["files"].update({name: content["files"]["evidence.json"]}))

    return harm


def link(name: str, target: str) -> Callable[[Path], None]:
    def harm(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)

    return harm


HARMS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "is not a bundle"),
    "manifest cut short": (lambda f: os.truncate(f / "manifest.json", 300), "manifest.json is not readable"),
    "manifest no object": (lambda f: (f / "manifest.json").write_text("[]"), "manifest.json is not readable"),
    "manifest nested without end": (lambda f: (f / "manifest.json").write_text("[" * 10**6), "not readable"),
    "manifest too large": (lambda f: (f / "manifest.json").write_bytes(b" " * 5_000_000), "more than 4000000 bytes"),
    "newer format": (lambda f: change(f, lambda c: c.update(format=4)), r"has format 4; this slmops reads up to 3"),
    "unknown key": (lambda f: change(f, lambda c: c.update(run="rm")), "run: Extra inputs"),
    "missing key": (lambda f: change(f, lambda c: c.pop("engine")), "engine: Field required"),
    "bad name": (lambda f: change(f, lambda c: c.update(name="../x")), "name: "),
    "file gone": (lambda f: (f / "model" / "tokenizer.json").unlink(), "model/tokenizer.json is missing"),
    "file added": (lambda f: (f / "model" / "evil.so").write_bytes(b"x"), "model/evil.so is not in its manifest"),
    "file cut short": (lambda f: os.truncate(f / "model" / "model.onnx.data", 10), "model.onnx.data has 10 bytes"),
    "weights changed": (lambda f: flip_a_byte(f / "model" / "model.onnx.data"), "model.onnx.data was changed"),
    "evidence changed": (lambda f: flip_a_byte(f / "evidence.json"), "evidence.json was changed"),
    "template changed": (lambda f: flip_a_byte(f / "model" / "chat_template.jinja"), "chat_template.jinja was changed"),
    "evidence elsewhere": (lambda f: change(f, lambda c: c.update(evidence="e.json")), "evidence e.json is missing"),
    "path upwards": (outside("../evidence.json"), "no path inside a bundle"),
    "path upwards later": (outside("model/../../evidence.json"), "no path inside a bundle"),
    "absolute path": (outside("/etc/passwd"), "no path inside a bundle"),
    "path in disguise": (outside("model/./evidence.json"), "no path inside a bundle"),
    "backslash": (outside("..\\evidence.json"), "no path inside a bundle"),
    "link to a file": (link("model/model.onnx", "/etc/passwd"), "model/model.onnx is not a plain file"),
    "link to a folder": (link("more", "/etc"), "more is not a plain file"),
    "link as manifest": (link("manifest.json", "evidence.json"), "is not a bundle"),
    "pipe": (lambda f: os.mkfifo(f / "pipe"), "pipe is not a plain file"),
    "absent": (lambda f: f.rename(f.with_name("elsewhere")), "is not a bundle"),
}


@pytest.mark.parametrize("name", HARMS)
def test_a_harmed_bundle_is_refused_in_one_line(copy, name):
    harm, says = HARMS[name]
    open_bundle(copy)
    harm(copy)
    with pytest.raises(BadInput, match=says) as error:
        open_bundle(copy)
    assert "\n" not in str(error.value)
    assert str(copy) in str(error.value)
    assert error.value.hint


def test_only_weights_may_be_large(copy, monkeypatch):
    monkeypatch.setattr(bundle_manifest, "_MAX_OTHER_BYTES", 5_000)
    with pytest.raises(BadInput, match=r"tokenizer.json has \d+ bytes; only weights"):
        open_bundle(copy)


@pytest.mark.parametrize("name", ["model.safetensors", "model.onnx", "model.onnx.data", "model.gguf"])
def test_weights_of_every_runtime_may(name, copy, monkeypatch):
    most = max(path.stat().st_size for path in copy.rglob("*") if not path.name.startswith("model."))
    content = b" " * (most + 1)
    (copy / "model" / name).write_bytes(content)
    record = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    change(copy, lambda told: told["files"].update({f"model/{name}": record}))
    monkeypatch.setattr(bundle_manifest, "_MAX_OTHER_BYTES", most)
    assert f"model/{name}" in read_manifest(copy).files


def test_without_verification_sizes_and_names_still_count(copy):
    flip_a_byte(copy / "model" / "model.onnx.data")
    assert open_bundle(copy, verify=False).manifest.name == "support"
    os.truncate(copy / "model" / "model.onnx.data", 10)
    with pytest.raises(BadInput, match="10 bytes"):
        open_bundle(copy, verify=False)


@given(st.text(st.characters(codec="utf-8")))
def test_no_accepted_path_leaves_the_folder(name):
    record = FileRecord(sha256="0" * 64, size=0)
    parts = {"name": "a", "version": "1", "engine": "e", "task": {}, "generation": Generation(max_tokens=1)}
    try:
        manifest = Manifest(**parts, lineage={}, files={name: record})
    except ValueError:
        return
    (accepted,) = manifest.files
    root = Path("/bundle")
    assert root in Path(os.path.normpath(root / accepted)).parents


def test_the_manifest_says_what_it_is(written):
    manifest = read_manifest(written)
    assert (manifest.format, manifest.name, manifest.version) == (1, "support", "1.2.0")
    assert manifest.engine == "onnxruntime-genai"
    assert manifest.generation == Generation(max_tokens=60, temperature=0.0, top_p=1.0)
    assert manifest.lineage == {"seed": 7}
    assert {"evidence.json", "model/model.onnx", "model/tokenizer.json"} <= set(manifest.files)
    assert "created" not in json.loads((written / "manifest.json").read_text())
