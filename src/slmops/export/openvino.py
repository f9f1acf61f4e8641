"""A bundle as a model of OpenVINO's, by its own converter, which lives in an environment of its own."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from slmops.bundle.manifest import MODEL
from slmops.engines.blocks import Blocks
from slmops.errors import BadInput, SlmopsError
from slmops.export.folder import fresh, model_config, runs_on, writing_bundle
from slmops.export.huggingface import export_huggingface
from slmops.export.parameters import Part, parameters

INSTALL = (
    "python3.11 -m venv optimum && optimum/bin/pip install 'optimum-intel[openvino]' && "
    "slmops export openvino BUNDLE --python optimum/bin/python"
)

_CONVERT = "import sys; sys.modules['torchvision'] = None; from optimum.commands.optimum_cli import main; main()"
"""`optimum-cli` without torchvision, which it asks for, does not need, and which may be built for another torch."""


def export_openvino(folder: Path, out: Path, *, python: Path | None) -> Path:
    """Write the bundle in `folder` to `out` as OpenVINO's intermediate representation, with its tokenizer.

    The converter reads the values that the bundle computes with, in float32, and rounds them to as many bits in blocks
    as long as the bundle's; its scales are its own, so a level may come to lie beside ours.

    Args:
        python: of an environment with optimum-intel, whose transformers is older than this project's.

    Raises:
        BadInput: the bundle cannot be trusted, marks instead of writing, or is not for onnxruntime-genai; there is no
            such environment; or `out` holds something.
        SlmopsError: the converter failed; the last line that it wrote is in the message.
    """
    bundle = writing_bundle(folder, "OpenVINO's converter")
    runs_on(bundle, "onnxruntime-genai", "an export to OpenVINO")
    _check(python)
    stored = [part for _, part in parameters(folder / MODEL, model_config(bundle))]
    fresh(out)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
        source = export_huggingface(folder, Path(scratch) / "model", exact=True)
        command = [str(python), "-c", _CONVERT, "export", "openvino", "--model", str(source)]
        command += ["--task", "text-generation-with-past", *precision(stored), str(out)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own arguments
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise SlmopsError(f"the conversion to OpenVINO failed: {last}", hint="try the line that it ran by hand")
    return out


def precision(stored: list[Part]) -> list[str]:
    """What the converter is told, so that it keeps what most matrices are stored in."""
    blocks = [part for part in stored if isinstance(part, Blocks)]
    if not blocks:
        return ["--weight-format", "fp32"]
    if all(part.bits == 8 for part in blocks):
        return ["--weight-format", "int8"]
    four = next(part for part in blocks if part.bits == 4)
    symmetric = ["--sym"] if four.zeros is None else []
    size = str(four.levels.shape[2])
    return ["--weight-format", "int4", *symmetric, "--group-size", size, "--ratio", "1.0"]


def _check(python: Path | None) -> None:
    if python is None:
        raise BadInput(
            "OpenVINO's converter needs an environment of its own: it wants an older transformers", hint=INSTALL
        )
    probe = [str(python), "-c", "import optimum.intel"]
    try:
        found = subprocess.run(probe, capture_output=True, check=False)  # noqa: S603 - the user's own Python
    except OSError as error:
        raise BadInput(f"--python {python} cannot be run: {error}", hint=INSTALL) from error
    if found.returncode:
        raise BadInput(f"the environment of {python} has no optimum-intel", hint=INSTALL)
