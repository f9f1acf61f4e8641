"""Does an adapter beside the exported base answer as it does in PyTorch, merged into what it was trained on?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from slmops.bundle import AdapterPart, Bundle, open_bundle, place_bundle, write_bundle
from slmops.engines import adapted_engine, load_engine
from slmops.evaluate.parity import Parity, parity, spread
from slmops.evaluate.parity_gates import parity_verdicts
from slmops.evaluate.probe import Subject
from slmops.models.tokenizer import Tokenizer
from slmops.pipeline.files import content_digest
from slmops.recipe.evaluate import ParitySettings
from slmops.tasks import Row


def adapter_parity(
    base: Path, adapter: Path, bundle: Bundle, rows: Sequence[Row], settings: ParitySettings, *, seed: int = 0
) -> tuple[Parity, list[dict[str, Any]]]:
    """How both answer the same rows, and the gates; see `slmops.evaluate.parity`.

    Args:
        base: the Hugging Face folder that was exported.
        adapter: the folder of PEFT.
        bundle: asked with the adapter (`Bundle.adapted`).
        rows: with reference answers; `settings.rows` of them are asked.

    Returns:
        The comparison, and a verdict per question, whose `adapter` is its name.

    Raises:
        BadInput: there are no rows, or a row does not fit into the context.
    """
    engine = adapted_engine(load_engine("transformers", base, threads=bundle.threads, gpu=True), adapter)
    source = Subject(engine, Tokenizer.load(base), bundle.task)
    found = parity(source, bundle, spread(rows, settings.rows), weights=None, seed=seed)
    verdicts = [
        {**verdict, "adapter": bundle.adapter, "message": f"{bundle.adapter}: {verdict['message']}"}
        for verdict in parity_verdicts(found, settings)
    ]
    return found, verdicts


@dataclass(frozen=True)
class Trained:
    """What was exported.

    Attributes:
        base: a Hugging Face folder.
        adapters: folders of PEFT, by name.
        rows: with reference answers, of each adapter.
    """

    base: Path
    adapters: Mapping[str, Path]
    rows: Mapping[str, Sequence[Row]]


def place_proven(
    out: Path,
    model: Path,
    parts: Mapping[str, AdapterPart],
    trained: Trained,
    told: Mapping[str, Any],
    *,
    work: Path,
    threads: int,
) -> list[dict[str, Any]]:
    """Put a bundle to `out` where each of its adapters answers as PyTorch's merged model; what was found goes into it.

    Args:
        model: the exported base, for onnxruntime-genai.
        told: name, version and task of the bundle.
        work: a folder for what is needed on the way.

    Returns:
        The verdicts of all adapters. Where one is a failure, nothing is put there.

    Raises:
        BadInput: see `write_bundle` and `adapter_parity`.
    """
    digests = {name: content_digest(path) for name, path in {"base": trained.base, **trained.adapters}.items()}
    always: dict[str, Any] = {
        "engine": "onnxruntime-genai",
        "model_folder": model,
        "lineage": {"inputs": digests},
        "evidence": {},
    }
    write_bundle(work / "asked", **always, **told, adapters=parts)
    bundle = open_bundle(work / "asked", threads=threads)
    verdicts, proven = list[dict[str, Any]](), dict[str, AdapterPart]()
    for name, part in parts.items():
        rows, folder = trained.rows[name], trained.adapters[name]
        found, judged = adapter_parity(trained.base, folder, bundle.adapted(name), rows, ParitySettings())
        proven[name] = replace(part, evidence={"parity": asdict(found), "gates": judged})
        verdicts += judged
    if all(verdict["state"] == "pass" for verdict in verdicts):
        write_bundle(work / "proven", **always, **told, adapters=proven)
        place_bundle(work / "proven", out)
    return verdicts
