"""The check of parity as a stage of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from slmops.pipeline.stage import Context
from slmops.recipe.evaluate import ParitySettings
from slmops.recipe.settings import Settings


class CheckParitySettings(ParitySettings):
    threads: int


class CheckParity:
    """`source` (a Hugging Face folder in `model/`) with `answers` (as scored), `bundle`, `data` and `evaluate` →
    `parity.json` and `gates.json`; and for CI systems `junit.xml` and `summary.md`, of all gates of the run.
    """

    name: ClassVar[str] = "parity"
    version: ClassVar[int] = 3
    libraries: ClassVar[tuple[str, ...]] = (
        *("numpy", "rouge-score", "sacrebleu", "scipy"),
        *("torch", "transformers", "onnxruntime-genai", "onnxruntime", "onnx", "tokenizers"),
    )

    def run(
        self, inputs: Mapping[str, Path], settings: CheckParitySettings, context: Context
    ) -> Mapping[str, float | str]:
        from dataclasses import asdict

        from slmops.data.read import read_jsonl
        from slmops.evaluate.outcome import write_for_ci
        from slmops.evaluate.parity import compared, spread
        from slmops.evaluate.parity_gates import parity_verdicts
        from slmops.tasks import task_of

        task, every = task_of(inputs["data"]), read_jsonl(inputs["data"] / "test.jsonl")
        rows = spread(every, settings.rows)
        written = {answer["id"]: answer["token_ids"] for answer in read_jsonl(inputs["answers"] / "predictions.jsonl")}
        asked = _asked(inputs, rows, [written[row["id"]] for row in rows], settings.threads, context)
        found = compared(task, rows, *asked, seed=context.seed)
        verdicts = parity_verdicts(found, settings)
        _write(context.out, asdict(found), verdicts)
        write_for_ci(context.out, inputs["evaluate"], verdicts)
        figures = {v["figure"]: v["value"] for v in verdicts if v["value"] is not None}
        return {**figures, "gates_failed": sum(verdict["state"] != "pass" for verdict in verdicts)}


class CheckAdaptersSettings(Settings):
    """Bounds by adapter."""

    adapters: dict[str, ParitySettings]
    threads: int


class CheckAdapters:
    """`bundle`, `base`, and `adapter:NAME` and `data:NAME` of every adapter → `parity.json`, by adapter, and
    `gates.json`: does each answer in the bundle as PyTorch does with it merged?
    """

    name: ClassVar[str] = "parity-adapters"
    version: ClassVar[int] = 1
    libraries: ClassVar[tuple[str, ...]] = (*CheckParity.libraries, "peft")

    def run(
        self, inputs: Mapping[str, Path], settings: CheckAdaptersSettings, context: Context
    ) -> Mapping[str, float | str]:
        from dataclasses import asdict

        from slmops.bundle import open_bundle
        from slmops.data.read import read_jsonl
        from slmops.evaluate.adapter_parity import adapter_parity
        from slmops.models.adapters.files import ADAPTER, named

        bundle, base = open_bundle(inputs["bundle"], threads=settings.threads), inputs["base"] / "model"
        found, verdicts = dict[str, Any](), list[dict[str, Any]]()
        with context.progress.task("parity", len(settings.adapters), "adapters") as bar:
            for name, folder in named(inputs).items():
                rows = read_jsonl(inputs[f"data:{name}"] / "test.jsonl")
                own, asked = settings.adapters[name], bundle.adapted(name)
                parity, judged = adapter_parity(base, folder / ADAPTER, asked, rows, own, seed=context.seed)
                found[name] = asdict(parity)
                verdicts += judged
                bar.advance()
        _write(context.out, found, verdicts)
        figures = {f"{v['figure']}:{v['adapter']}": v["value"] for v in verdicts if v["value"] is not None}
        return {**figures, "gates_failed": sum(verdict["state"] != "pass" for verdict in verdicts)}


def _write(out: Path, found: Mapping[str, Any], verdicts: list[dict[str, Any]]) -> None:
    for name, content in (("parity", found), ("gates", verdicts)):
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        (out / f"{name}.json").write_text(text, encoding="utf-8")


def _asked(
    inputs: Mapping[str, Path], rows: list[dict[str, Any]], written: list[list[int]], threads: int, context: Context
) -> tuple[Any, Any, Any]:
    """The parts of both models, and how their weights compare where the bundle's can be read back.

    Each in a process of its own, one after the other.
    """
    from dataclasses import asdict

    from slmops.bundle.manifest import MODEL, read_manifest
    from slmops.data.read import write_jsonl
    from slmops.evaluate.own_process import in_own_process
    from slmops.evaluate.parity_process import Job, read_side
    from slmops.evaluate.parity_weights import READERS, Weights
    from slmops.evaluate.parity_weights import Job as WeightsJob

    model, bundle = inputs["source"] / "model", inputs["bundle"]
    asked, source, shipped, weights = (
        context.work / name for name in ("rows.jsonl", "source.json", "shipped.json", "weights.json")
    )
    write_jsonl(asked, rows)
    task = json.loads((inputs["data"] / "task.json").read_text(encoding="utf-8"))
    engine = read_manifest(bundle, verify=False).engine
    readable = engine in READERS
    with context.progress.task("parity", 3 if readable else 2, "steps") as bar:
        for folder, before, out in ((model, None, source), (bundle, source, shipped)):
            theirs = {"source": str(before) if before else None, "tokens": str(model) if before else None}
            job = Job(str(folder), task, str(asked), written, threads=threads, out=str(out), **theirs)
            in_own_process("slmops.evaluate.parity_process", asdict(job), context.work, f"asking {folder} failed")
            bar.advance()
        if readable:
            compare = asdict(WeightsJob(str(model), str(bundle / MODEL), engine, str(weights)))
            in_own_process("slmops.evaluate.parity_weights", compare, context.work, "comparing the weights failed")
            bar.advance()
    found = Weights(**json.loads(weights.read_text(encoding="utf-8"))) if readable else None
    return read_side(source), read_side(shipped), found
