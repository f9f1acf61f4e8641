"""Bundling as a stage of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from slmops.errors import BadInput
from slmops.pipeline.stage import Context
from slmops.recipe.settings import FolderName, Settings

if TYPE_CHECKING:
    from slmops.bundle.phrases import Phrases


class WriteBundleSettings(Settings):
    name: FolderName
    version: str
    recipe: dict[str, Any] = Field(description="The recipe as resolved; kept as lineage.")


class WriteBundle:
    """`model` (a folder with `model/`), `data` (`task.json`), `evaluate` (`evidence.json`), `card` (`MODEL_CARD.md`)
    and, of a task with labels, `calibrate` (`calibration.json`) → a bundle.

    What the answers of `data` and, where there are some, `answers` (`answers.jsonl`) commonly say goes into it, too.
    """

    name: ClassVar[str] = "bundle"
    version: ClassVar[int] = 4
    libraries: ClassVar[tuple[str, ...]] = ("onnxruntime-genai", "onnxruntime", "tokenizers", "torch", "transformers")

    def run(
        self, inputs: Mapping[str, Path], settings: WriteBundleSettings, context: Context
    ) -> Mapping[str, float | str]:
        from slmops.bundle.manifest import CARD
        from slmops.bundle.write import write_bundle
        from slmops.engines import engine_of
        from slmops.pipeline.files import bytes_below

        model, fitted = inputs["model"] / "model", inputs.get("calibrate")
        write_bundle(
            context.out,
            name=settings.name,
            version=settings.version,
            engine=engine_of(model),
            model_folder=model,
            task=_read_json(inputs["data"] / "task.json"),
            lineage=lineage_of(inputs, settings, context, self.libraries),
            evidence=_read_json(inputs["evaluate"] / "evidence.json"),
            calibration=_read_json(fitted / "calibration.json") if fitted else None,
            card=(inputs["card"] / CARD).read_text(encoding="utf-8"),
            phrases=common_phrases(model, inputs["data"], inputs.get("answers")),
        )
        return {"name": settings.name, "version": settings.version, "bundle_bytes": bytes_below(context.out)}


class WriteAdapters:
    """`model` (`model/` and `adapters/NAME.onnx_adapter`), and `data:NAME` (`task.json`) and `evaluate:NAME`
    (`evidence.json`) of every adapter → a bundle.

    Asked without an adapter, it does the task of the first.
    """

    name: ClassVar[str] = "bundle-adapters"
    version: ClassVar[int] = 1
    libraries: ClassVar[tuple[str, ...]] = WriteBundle.libraries

    def run(
        self, inputs: Mapping[str, Path], settings: WriteBundleSettings, context: Context
    ) -> Mapping[str, float | str]:
        from slmops.bundle.write import AdapterPart, write_bundle
        from slmops.engines import engine_of
        from slmops.engines.onnx_slots import FILE
        from slmops.pipeline.files import bytes_below

        def part(name: str) -> AdapterPart:
            path = inputs["model"] / "adapters" / f"{name}{FILE}"
            return AdapterPart(
                path,
                _read_json(inputs[f"data:{name}"] / "task.json"),
                _read_json(inputs[f"evaluate:{name}"] / "evidence.json"),
            )

        parts = {name: part(name) for name in settings.recipe["adapters"]}
        model = inputs["model"] / "model"
        write_bundle(
            context.out,
            name=settings.name,
            version=settings.version,
            engine=engine_of(model),
            model_folder=model,
            task=next(iter(parts.values())).task,
            lineage=lineage_of(inputs, settings, context, self.libraries),
            evidence={},
            adapters=parts,
        )
        return {"name": settings.name, "version": settings.version, "bundle_bytes": bytes_below(context.out)}


class OpenBundle:
    """`bundle` (a folder) and perhaps `data` → its `model/`, checked, to be measured or asked.

    With `data` the bundle must do the same task.
    """

    name: ClassVar[str] = "open"
    version: ClassVar[int] = 1
    libraries: ClassVar[tuple[str, ...]] = ()

    def run(
        self,
        inputs: Mapping[str, Path],
        settings: Settings,  # noqa: ARG002 - there are none
        context: Context,
    ) -> Mapping[str, float | str]:
        from slmops.bundle.manifest import MODEL, read_manifest
        from slmops.pipeline.files import files_below, link_or_copy

        manifest = read_manifest(inputs["bundle"])
        if "data" in inputs:
            _check_same_task(manifest.task, _read_json(inputs["data"] / "task.json"), manifest.name)
        for path in files_below(inputs["bundle"] / MODEL):
            link_or_copy(inputs["bundle"] / MODEL / path, context.out / MODEL / path)
        return {"name": manifest.name, "version": manifest.version}


def lineage_of(
    inputs: Mapping[str, Path], settings: WriteBundleSettings, context: Context, libraries: Sequence[str]
) -> dict[str, Any]:
    """What a bundle was made from, and by what."""
    from slmops.pipeline.environment import environment
    from slmops.pipeline.files import content_digest

    return {
        "recipe": settings.recipe,
        "seed": context.seed,
        "inputs": {name: content_digest(path) for name, path in sorted(inputs.items())},
        "environment": environment(libraries),
    }


def common_phrases(model: Path, data: Path, answers: Path | None) -> Phrases | None:
    """What the answers commonly say that a student was shown; None of one that marks, which does not write."""
    from slmops.bundle.phrases import Phrases
    from slmops.data.read import read_jsonl
    from slmops.models.tag_files import is_tagger
    from slmops.models.tokenizer import Tokenizer, end_of_answer
    from slmops.tasks import task_of

    if is_tagger(model):
        return None
    task, tokenizer = task_of(data), Tokenizer.load(model)
    labelled = ((row["input"], task.write(row["output"])) for row in read_jsonl(data / "train.jsonl"))
    taught = ((row["input"], row["text"]) for row in (read_jsonl(answers / "answers.jsonl") if answers else ()))
    end = end_of_answer(tokenizer)
    return Phrases.of(
        (tokenizer.prompt(task.render(asked)), [*tokenizer.encode(answer), end])
        for asked, answer in (*labelled, *taught)
    )


def _check_same_task(theirs: Mapping[str, Any], ours: Mapping[str, Any], name: str) -> None:
    """How long an answer may be is no part of what is asked."""
    for key in sorted((theirs.keys() | ours.keys()) - {"max_answer_tokens"}):
        if theirs.get(key) != ours.get(key):
            raise BadInput(
                f"the bundle {name} has another task: its `{key}` is not that of the recipe",
                hint="take it out (evaluate.released, or the teacher with its path): it answers other questions",
            )


def _read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
