"""What is written for a container: manifests that Kubernetes takes, and steps that end in a server that answers."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from slmops.errors import BadInput
from slmops.export.container_folder import export_container

SCHEMA = json.loads(Path(__file__).with_name("kubernetes.schema.json").read_text())
DEFINITIONS = "io.k8s.api."


@pytest.fixture(scope="module")
def folder(packed, tmp_path_factory) -> Path:
    return export_container(packed, tmp_path_factory.mktemp("container") / "out")


def faults(content: Any, kind: str) -> list[str]:
    """What Kubernetes would have against `content`."""
    schema = {"$ref": f"#/$defs/{DEFINITIONS}{kind}", "$defs": SCHEMA["$defs"]}
    return [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(content)]


def test_kubernetes_takes_the_manifest(folder):
    deployment, service = yaml.safe_load_all((folder / "kubernetes.yaml").read_text())
    assert faults(deployment, "apps.v1.Deployment") == []
    assert faults(service, "core.v1.Service") == []
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert {"livenessProbe", "readinessProbe", "startupProbe"} <= container.keys()
    assert {"cpu", "memory"} <= container["resources"]["limits"].keys()
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert service["spec"]["selector"].items() <= labels.items()
    container["livenesProbe"] = container.pop("livenessProbe")
    assert faults(deployment, "apps.v1.Deployment"), "a slip of the pen is seen"


def test_kserve_takes_the_manifest(folder):
    """A predictor is a pod's specification with a few fields more (KServe v1beta1, ComponentExtensionSpec)."""
    told = yaml.safe_load((folder / "kserve.yaml").read_text())
    assert (told["apiVersion"], told["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    predictor = told["spec"]["predictor"]
    assert 1 <= predictor.pop("minReplicas") <= predictor.pop("maxReplicas")
    assert faults(predictor, "core.v1.PodSpec") == []
    (container,) = predictor["containers"]
    assert container["name"] == "kserve-container", "another name is a sidecar to KServe"
    assert {"livenessProbe", "readinessProbe"} <= container.keys()


def test_the_image_runs_as_nobody_and_without_tools(folder):
    text = (folder / "Containerfile").read_text()
    last = text.split("\nFROM ")[-1]
    assert re.search(r"^USER 65532", last, re.MULTILINE)
    assert re.search(r"pip uninstall .*pip$", last, re.MULTILINE)
    assert "/health" in re.search(r"HEALTHCHECK.*\n.*", last)[0]
    compose = yaml.safe_load((folder / "compose.yaml").read_text())
    (service,) = compose["services"].values()
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])


def words(folder: Path, instruction: str) -> list[str]:
    """Of an instruction of the Containerfile that is a JSON list, the last of its kind."""
    return json.loads(
        re.findall(rf"^{instruction} (\[.*\])$", (folder / "Containerfile").read_text(), re.MULTILINE)[-1]
    )


def test_its_steps_end_in_a_server_that_answers(folder, tmp_path):
    """The wheel alone in an environment that sees the pinned packages but not this source: what the image runs."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "env"], check=True)
    (wheel,) = folder.glob("*.whl")
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel], check=True)
    (site,) = (tmp_path / "env").glob("lib/*/site-packages")
    link(folder / "requirements.txt", site)
    command = [str(word) for word in [*words(folder, "ENTRYPOINT"), *words(folder, "CMD")]]
    command[0] = str(tmp_path / "env" / "bin" / "slmops")
    command[command.index("/bundle")] = str(folder / "bundle")
    command[command.index("0.0.0.0")], command[command.index("8000")] = "127.0.0.1", "0"  # noqa: S104
    clean = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=clean, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stderr.readline()
        assert " at http" in line, line + process.stderr.read()
        where = line.split(" at ")[1].strip().removesuffix("/v1")
        with urllib.request.urlopen(f"{where}/health", timeout=30) as health:  # noqa: S310 - loopback
            assert health.status == 200
        body = {"model": "tiny", "messages": [{"role": "user", "content": "Where is order 4711?"}]}
        asked = urllib.request.Request(f"{where}/v1/chat/completions", json.dumps(body).encode())  # noqa: S310
        with urllib.request.urlopen(asked, timeout=30) as answer:  # noqa: S310 - loopback
            assert json.load(answer)["choices"][0]["message"]["content"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()


def link(requirements: Path, site: Path) -> None:
    """Put the packages that are pinned, and no others, where the environment finds them, as installed here."""
    from importlib import metadata

    for line in requirements.read_text().splitlines():
        name, _, version = line.partition("==")
        told = metadata.distribution(name)
        assert told.version.partition("+")[0] == version
        for top in {path.parts[0] for path in told.files if path.parts[0] not in ("..", "__pycache__")}:
            if not (site / top).exists():
                (site / top).symlink_to(told.locate_file(top))


def test_a_folder_that_holds_something_is_kept(packed, tmp_path):
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(BadInput, match="not empty"):
        export_container(packed, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_student_that_marks_is_refused(packed, tmp_path):
    from slmops.bundle import write_bundle
    from slmops.export.foundry import export_foundry
    from slmops.export.huggingface import export_huggingface
    from slmops.export.ollama import export_ollama
    from slmops.tasks import Generation

    model = shutil.copytree(packed / "model", tmp_path / "model")
    (model / "tags.json").write_text('{"format": 2}')
    marks = tmp_path / "marks"
    told = {"task": Generation(None, 8).describe(), "lineage": {}, "evidence": {}}
    write_bundle(marks, name="m", version="1", engine="onnxruntime-genai", model_folder=model, **told)
    for export in (export_foundry, export_huggingface, export_ollama):
        with pytest.raises(BadInput, match="marks its message"):
            export(marks, tmp_path / "out")
        assert not (tmp_path / "out").exists()
