"""Our side of the compression benchmark, every job in a process of its own; see `rivals/measuring.py` for the jobs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from rivals.measuring import Job, Prompts, Written
from rivals.measuring import main as do_job

from slmops.engines import Sampling, load_engine
from slmops.engines.llamacpp import FILE as GGUF
from slmops.engines.openvino import MARK
from slmops.models.spelling import Spelling, spelling
from slmops.models.tokenizer import Tokenizer
from slmops.recipe.compress import CompressSettings
from slmops.train.examples import Example

if TYPE_CHECKING:
    from slmops.models.tag_head import TagHead

_READ_BYTES, _READS = 1 << 30, 8


class Ours:
    """The engine that ships, as it is; only what ends an answer is the benchmark's to say.

    A vocabulary of its own stays its own: it is given and gives the benchmark's tokens, those of the source.
    """

    def __init__(self, job: Job) -> None:
        folder = Path(job["model"])
        self._engine: Any = load_engine(_engine_of(folder), folder, threads=job["threads"])
        whole, small = Tokenizer.load(Path(job["source"]) / "model"), Tokenizer.load(folder)
        self._other = Translation(whole, small, found) if (found := spelling(whole, small)) else None

    def log_probs(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        own = self._other.read(ids) if self._other else ids
        found = self._engine.score([own[:1]], [own[1:]])[0]
        return self._other.by_token(ids, own, found) if self._other else found

    def write(self, prompts: Prompts, limit: int, ends: Collection[int]) -> Written:
        other = self._other
        self._engine._end_ids = frozenset(other.spelled.of(ends) if other else ends)
        answers: list[list[int]] = [[] for _ in prompts]
        first = 0.0
        for token in self._engine.generate(list(map(other.read, prompts)) if other else prompts, Sampling(limit)):
            first = first or time.perf_counter()
            answers[token.request].append(other.spelled.kept[token.id] if other else token.id)
        return Written(answers, time.perf_counter() - first)


def _engine_of(folder: Path) -> str:
    """What runs the model in `folder`, by the file that it alone has."""
    files = {"llama.cpp": GGUF, "openvino": MARK}
    return next((engine for engine, file in files.items() if (folder / file).exists()), "onnxruntime-genai")


@dataclass(frozen=True)
class Translation:
    """Tokens of the source in those of a model whose vocabulary was cut, and back."""

    whole: Tokenizer
    small: Tokenizer
    spelled: Spelling

    def read(self, ids: Sequence[int]) -> list[int]:
        """The same text as the model reads it."""
        return self.small.encode(self.whole.backend.decode(list(ids), skip_special_tokens=False))

    def by_token(
        self, ids: Sequence[int], own: Sequence[int], log_probs: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        """Log-probabilities of `own` but its first, summed for each of `ids` but the first.

        A piece counts for the token in which it ends, and what there is of the first counts for the second, so nothing
        is left out of the sum. A perplexity is then per token of the source, as everyone's is.
        """
        theirs, ours = (
            np.cumsum([len(of.backend.id_to_token(id)) for id in tokens])
            for of, tokens in ((self.whole, ids), (self.small, own))
        )
        places = np.searchsorted(theirs, ours[1:]).clip(1)
        return np.bincount(places, weights=log_probs, minlength=len(ids))[1:].astype(np.float32)


def make(job: Job, work: Path) -> dict[str, Any]:
    """The stage that ships models, on the model and rows of `source`, with the variant's settings."""
    from slmops.compress.stage import Convert
    from slmops.pipeline.stage import Context

    settings = CompressSettings(**job["settings"])
    source, out = Path(job["source"]), Path(job["out"])
    inputs = {"model": source} | ({"data": source / "data"} if settings.reads_rows else {})
    begun = time.perf_counter()
    if settings.recover:
        inputs["model"] = recovered(source / "model", job["texts"], settings, work / f"{out.name}.recovered")
        settings = settings.model_copy(update={"recover": None})
    figures = Convert().run(inputs, settings, Context(out, work / f"{out.name}.work", seed=0))
    return {"model": str(out / "model"), "size_bytes": figures["weights_bytes"], "make_s": time.perf_counter() - begun}


def recovered(model: Path, texts: Sequence[Sequence[int]], settings: CompressSettings, folder: Path) -> Path:
    """What `slmops.train.stage_recover` does, on whole texts as these subjects have learned them."""
    from slmops.models.source import save_model
    from slmops.recipe.objective import ForwardKl
    from slmops.train.objectives.observe import TeacherModel
    from slmops.train.trainer import train

    trained = train(
        model,
        whole(texts),
        settings.recover,
        objective=[ForwardKl(logits="online")],
        teacher=TeacherModel(model),
        rounding=settings,
        work=folder / "checkpoints",
        seed=0,
    )
    save_model(trained.model, folder / "model", tokenizer_from=model)
    return folder


def whole(texts: Sequence[Sequence[int]]) -> list[Example]:
    """Texts of which every token is learned but the first."""
    return [Example(tuple(ids[:1]), tuple(ids[1:])) for ids in texts]


def tune(job: Job, work: Path) -> dict[str, Any]:
    """The subject of the measurement: the first layers of a model, trained on whole rows, requests and answers alike.

    Only so is the perplexity of a request one that the model was trained for. Where it `marks`, a head that labels
    takes the place of the one that writes.
    """
    from slmops.models.carve import keep_layers
    from slmops.models.source import load_model, save_model
    from slmops.recipe.training import Optimisation
    from slmops.train.trainer import train

    start, model = work / "start", load_model(Path(job["base"]))
    keep_layers(model, range(job["layers"] or model.config.num_hidden_layers))
    save_model(model, start, tokenizer_from=Path(job["base"]))
    examples, head = (
        lessons_of_labels(Path(job["out"]), model.config.hidden_size)
        if job.get("marks")
        else (whole(job["texts"]), None)
    )
    optimisation = Optimisation(**job["optimisation"])
    trained = train(start, examples, optimisation, work=work / "checkpoints", seed=job["seed"], head=head)
    save_model(trained.model, Path(job["out"]), tokenizer_from=Path(job["base"]))
    return {"tokens": trained.tokens, "seconds": trained.seconds}


def lessons_of_labels(model: Path, width: int) -> tuple[list[Example], TagHead]:
    """The rows beside `model`, whose tokenizer is there, as examples of their labels, and a new head."""
    from slmops.data.read import read_jsonl
    from slmops.models.tokenizer import Tokenizer
    from slmops.tasks import task_of
    from slmops.train.tagged import Answered, new_head, tagged_examples

    task, tokenizer = task_of(model.parent / "data"), Tokenizer.load(model)
    rows = read_jsonl(model.parent / "data" / "train.jsonl")
    examples, _ = tagged_examples((Answered(row["id"], row["input"], row["output"]) for row in rows), task, tokenizer)
    return examples, new_head(task, tokenizer, width)


def read(job: Job) -> dict[str, float]:
    """Bytes per second that all threads together read of an array larger than any cache; the best of several reads."""
    array = np.ones(_READ_BYTES // 8, dtype=np.int64)
    parts, seconds = np.array_split(array, job["threads"]), []
    with ThreadPoolExecutor(job["threads"]) as pool:
        for _ in range(_READS):
            begun = time.perf_counter()
            list(pool.map(np.sum, parts))
            seconds.append(time.perf_counter() - begun)
    return {"bytes_per_s": array.nbytes / min(seconds)}


def main(work: Path, name: str) -> None:
    job: Mapping[str, Any] = json.loads((work / f"{name}.json").read_text(encoding="utf-8"))
    if job["job"] == "tune":
        import torch

        torch.set_num_threads(job["threads"])
        found: Mapping[str, Any] = tune(job, work / name)
    elif job["job"] == "read":
        found = read(job)
    else:
        do_job(Ours, make)
        return
    (work / f"{name}.found.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
