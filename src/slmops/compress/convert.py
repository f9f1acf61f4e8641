"""One model in the form that ships: its weights chosen on the user's rows, exported and packed."""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from slmops.compress.behead import behead
from slmops.compress.export import export
from slmops.compress.gguf_file import write_gguf
from slmops.compress.memory import check_memory
from slmops.compress.pack import pack
from slmops.engines import BODIES
from slmops.engines.llamacpp import FILE
from slmops.engines.openvino import MARK
from slmops.errors import BadInput
from slmops.models.adapters.files import refuse_adapted
from slmops.models.tag_files import is_tagger
from slmops.progress import Progress, Silent
from slmops.recipe.compress import CompressSettings

if TYPE_CHECKING:
    import onnx


def convert(
    model: Path,
    out: Path,
    settings: CompressSettings,
    *,
    data: Path | None = None,
    answers: Path | None = None,
    scratch: Path,
    progress: Progress | None = None,
) -> dict[str, float]:
    """Write the model in folder `model` to `out` as `settings` say, with its tokenizer.

    A model that labels is written without its language head, its own head beside it.

    Args:
        data: what the data stage wrote; needed where `settings.reads_rows`, and not looked at otherwise.
        answers: a folder with the answers of a teacher that the model learned from, where its tokens are cut.
        scratch: a folder for what is needed on the way.

    Returns:
        What the choice of values tells: the errors of rounding and pruning, what rounding each layer costs; with zeros
        in the weights `weights_bytes_compressed` too, see `deflated_bytes`; of a trimmed vocabulary those of
        `cut_vocabulary`.

    Raises:
        BadInput: the settings do not go with the model or the rows, the architecture is not known, or the model does
            not fit in memory.
        SlmopsError: the export failed.
    """
    refuse_adapted(model)
    if settings.recover:
        raise BadInput(
            "a model recovers before it is converted, by training",
            hint="run slmops.train.stage_recover first, as a recipe's run does, and leave `recover` out here",
        )
    if settings.calibrated and data is None:
        raise BadInput(
            f"{settings.algorithm} chooses values by rows, and none are given",
            hint="give `data`, the folder of a data stage, or set algorithm: rtn",
        )
    if settings.trims and data is None:
        raise BadInput(
            "a vocabulary is trimmed to the tokens of rows, and none are given",
            hint="give `data`, the folder of a data stage, or set vocabulary: keep",
        )
    check_memory(model)
    if settings.runtime not in BODIES and is_tagger(model):
        raise BadInput(
            f"{settings.runtime} runs no model that labels",
            hint="set compress.runtime: onnxruntime-genai, or student.head: text",
        )
    told = progress or Silent()
    source, int8_layers, figures = model, list[int](), dict[str, float]()
    if settings.trims and data:
        from slmops.compress.vocabulary import cut_vocabulary

        # First, so that the layers are measured on what they will be given.
        source = scratch / "trimmed"
        figures = cut_vocabulary(model, data, source, extra_tokens=settings.extra_tokens, answers=answers)
    if settings.calibrated and data:
        from slmops.compress.choose import choose_values

        source, int8_layers, chosen = choose_values(source, data, settings, scratch=scratch, progress=told)
        figures |= chosen
    with told.task(f"convert to {settings.precision}", None, "") as task:
        if settings.runtime == "llama.cpp":
            write_gguf(source, out, settings, int8_layers=int8_layers)
        else:
            export(source, out, scratch=scratch)
            shrink(out / "model.onnx", settings, int8_layers, labels=is_tagger(model))
            if settings.runtime == "openvino":
                # The same file, which OpenVINO translates as it loads it; this says who runs it.
                (out / MARK).write_text(json.dumps({"runs": "model.onnx"}) + "\n", encoding="utf-8")
        task.advance()
    if settings.sparsity:
        figures["weights_bytes_compressed"] = float(deflated_bytes(out / weights_file(settings.runtime)))
    return figures


def weights_file(runtime: str) -> str:
    """Where the weights are in what is written for a runtime."""
    return FILE if runtime == "llama.cpp" else "model.onnx.data"


def deflated_bytes(path: Path) -> int:
    """What a file takes where it is packed for transport: zeros are stored in full, and cost nothing there alone."""
    packer, count = zlib.compressobj(1), 0
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            count += len(packer.compress(piece))
    return count + len(packer.flush())


def shrink(path: Path, settings: CompressSettings, int8_layers: Collection[int] = (), *, labels: bool = False) -> None:
    """Take the exported model in `path` its head, where it labels and has no use for it, and pack its weights."""
    import onnx

    if not settings.packed and not labels:
        return
    model = onnx.load(path)
    if labels:
        behead(model)
    if settings.packed:
        pack(model, settings, int8_layers=int8_layers)
    _write(model, path)


def _write(model: onnx.ModelProto, path: Path) -> None:
    """Replace the model in `path` and the file of its weights."""
    import onnx

    beside = path.with_name(path.name + ".data")
    path.unlink()
    beside.unlink(missing_ok=True)
    onnx.save(model, path, save_as_external_data=True, all_tensors_to_one_file=True, location=beside.name)
    # The library lets nobody else read what it writes beside a model.
    shutil.copymode(path, beside)
