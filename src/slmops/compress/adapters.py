"""A base exported once, with slots for adapters, and each adapter as a file of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from slmops.bundle.manifest import NAME
from slmops.compress.adapter_files import fitted, slots_for, write_adapter
from slmops.compress.convert import convert
from slmops.compress.slots import add_slots
from slmops.engines.onnx_slots import FILE
from slmops.errors import BadInput
from slmops.models.tag_files import is_tagger
from slmops.progress import Progress
from slmops.recipe.compress import CompressSettings

MODEL, ADAPTERS = "model", "adapters"


def convert_adapters(
    base: Path,
    adapters: Mapping[str, Path],
    out: Path,
    settings: CompressSettings,
    *,
    data: Path | None = None,
    scratch: Path,
    progress: Progress | None = None,
) -> dict[str, float]:
    """Write the base in folder `base` to `out`/model, and each adapter to `out`/adapters/NAME.onnx_adapter.

    The base is rounded as `settings` say, adapters are float32. A base that is asked without one answers as it would
    without slots.

    Args:
        adapters: folders of PEFT, by name.
        data, scratch, progress: see `convert`.

    Returns:
        As `convert`, and `adapters_bytes`.

    Raises:
        BadInput: an adapter cannot ride beside the base, which is found before anything is exported; or see `convert`.
    """
    import onnx

    if settings.runtime != "onnxruntime-genai":
        raise BadInput(f"{settings.runtime} runs no adapters", hint="set compress.runtime: onnxruntime-genai, or merge")
    if settings.trims:
        raise BadInput(
            "a base that several adapters share keeps its vocabulary: each has rows of its own",
            hint="set compress.vocabulary: keep, or merge one adapter and trim that model",
        )
    if is_tagger(base):
        raise BadInput(f"the model in {base} labels, and slots are in models that write", hint="merge its adapter")
    if odd := [name for name in adapters if not re.fullmatch(NAME, name)]:
        raise BadInput(f"an adapter cannot be called {odd[0]!r}", hint="take lower-case letters, digits and . _ -")
    if not adapters:
        raise BadInput("there are no adapters to export", hint="give at least one, or export the base alone")
    updates = {name: fitted(base, folder) for name, folder in adapters.items()}
    figures = convert(base, out / MODEL, settings, data=data, scratch=scratch, progress=progress)
    path = out / MODEL / "model.onnx"
    # The weights beside it stay where they are.
    model = onnx.load(path, load_external_data=False)
    add_slots(model, slots_for(base, updates))
    path.unlink()
    onnx.save(model, path)
    for name, update in updates.items():
        write_adapter(update, out / ADAPTERS / f"{name}{FILE}")
    written = sum(file.stat().st_size for file in (out / ADAPTERS).iterdir())
    return {**figures, "adapters_bytes": float(written)}
