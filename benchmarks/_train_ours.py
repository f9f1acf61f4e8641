"""Our side of the training benchmark: every job in a process of its own, so that its peak memory is its own.

Run as `_train_ours.py WORK JOB`; the job is `JOB.json` in the folder WORK, and what was found goes to `JOB.found.json`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from slmops.progress import Silent, Task

if TYPE_CHECKING:
    from slmops.train.examples import Example
    from slmops.train.trained import Trained

MATRIX, MULTIPLICATIONS = {"cpu": 1024, "cuda": 8192}, 20


class Clock(Silent):
    """Progress that notes when each batch of a task was done; `beats` hold (seconds, the same of this process's
    cores, tokens), the start first."""

    def __init__(self) -> None:
        self.beats: dict[str, list[tuple[float, float, float]]] = {}

    @contextmanager
    def task(self, title: str, total: float | None, unit: str) -> Iterator[Task]:  # noqa: ARG002
        beats = self.beats[title] = [(time.perf_counter(), time.process_time(), 0.0)]
        yield _Hand(beats)

    def steps(self, title: str) -> list[dict[str, float]]:
        """Tokens and seconds of each batch, by the clock and of cores; time between two belongs to the later one."""
        pairs = pairwise(self.beats[title])
        return [
            {"tokens": tokens, "seconds": end - begin, "cpu_s": cpu_end - cpu_begin}
            for (begin, cpu_begin, _), (end, cpu_end, tokens) in pairs
        ]

    def seconds(self, but: str) -> float:
        """Of all tasks but one."""
        return sum(beats[-1][0] - beats[0][0] for title, beats in self.beats.items() if title != but)


class _Hand:
    def __init__(self, beats: list[tuple[float, float, float]]) -> None:
        self._beats = beats

    def advance(self, amount: float = 1, **figures: float) -> None:  # noqa: ARG002
        self._beats.append((time.perf_counter(), time.process_time(), amount))


def models(job: Mapping[str, Any], work: Path) -> dict[str, Any]:
    """The teacher and the student of the distillation: every second or third layer of the teacher, all its tokens.

    Without a model, a small random one is made, which takes the tokenizer of `tokenizer`.
    """
    from slmops.models.carve import evenly_spaced, keep_layers
    from slmops.models.source import load_model, save_model

    teacher = Path(job["model"]) if job["model"] else random_model(Path(job["tokenizer"]), work / "teacher")
    model = load_model(teacher)
    keep_layers(model, evenly_spaced(model.config.num_hidden_layers, job["student_layers"]))
    save_model(model, work / "student", tokenizer_from=teacher)
    return {"teacher": str(teacher), "student": str(work / "student"), "layers": job["student_layers"]}


def random_model(tokenizer: Path, out: Path, width: int = 64) -> Path:
    """A four-layer Llama of random weights with the tokenizer of another model."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from slmops.models.source import save_model
    from slmops.models.tokenizer import Tokenizer

    torch.manual_seed(0)
    words = Tokenizer.load(tokenizer)
    (end,) = words.end_ids
    shape = {"hidden_size": width, "intermediate_size": 256, "num_hidden_layers": 4}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    config = LlamaConfig(
        vocab_size=words.size,
        tie_word_embeddings=True,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=words.pad_id,
        **shape,
        **heads,
    )
    save_model(LlamaForCausalLM(config), out, tokenizer_from=tokenizer)
    return out


def teach(job: Mapping[str, Any], work: Path) -> dict[str, Any]:
    """The teacher's most likely tokens at each place of the given answers, kept as the teach stage keeps them."""
    import numpy as np
    import torch

    from slmops.engines.sampling import top
    from slmops.models.device import fastest_device
    from slmops.models.source import load_model
    from slmops.teach.answers import Answer, save_answers
    from slmops.train.collate import collate

    model, examples = load_model(Path(job["model"]), device=fastest_device()), _examples(job["rows"])
    begun, answers = time.perf_counter(), {}
    order = sorted(range(len(examples)), key=lambda i: len(examples[i]))
    for start in range(0, len(order), job["batch"]):
        rows = order[start : start + job["batch"]]
        batch = collate([examples[i] for i in rows], pad=0)
        with torch.inference_mode():
            inputs = {name: batch[name].to(model.device) for name in ("input_ids", "attention_mask")}
            hidden = model.base_model(**inputs, use_cache=False).last_hidden_state
            predicts = batch["predicts"].to(model.device)
            logits = model.get_output_embeddings()(hidden[predicts]).float().cpu().numpy()
        places = iter(logits)
        for i in rows:
            tokens = np.array(examples[i].answer, dtype=np.int64)
            ids, log_probs = zip(*(top(next(places), job["top_logits"]) for _ in tokens), strict=True)
            answers[i] = Answer(str(i), "", "", tokens, np.stack(ids), np.stack(log_probs))
    save_answers(work / "answers", [answers[i] for i in range(len(examples))])
    return {"seconds": time.perf_counter() - begun, "answers": str(work / "answers")}


def fit(job: Mapping[str, Any], work: Path) -> dict[str, Any]:
    """One pass of our trainer over the rows, its loss on some of them before and after, its peak memory."""
    from slmops.recipe.objective import ForwardKl, TextTerm
    from slmops.recipe.training import Optimisation
    from slmops.recipe.tuning import Adapter
    from slmops.train.trainer import train

    examples = _examples(job["rows"], job.get("answers"))
    # Without a term of its own for the text, both sides minimise the same divergence.
    objective = [ForwardKl(), TextTerm(weight=0.0)] if job.get("answers") else [TextTerm()]
    some, clock = examples[: job["probe"]], Clock()
    start = _losses(_loaded(job["model"]), some, objective)
    trained: Trained = train(
        Path(job["model"]),
        examples,
        Optimisation(**job["optimisation"]),
        work=work / "checkpoints",
        seed=job["seed"],
        objective=objective,
        adapter=Adapter(**job["adapter"]) if job.get("adapter") else None,
        progress=clock,
        title="train",
    )
    peak = peak_bytes()
    return {
        "steps": clock.steps("train"),
        "other_s": clock.seconds(but="train"),
        "start": start,
        "end": _losses(trained.model, some, objective),
        "peak_mb": peak / 1e6,
        "weights": matrix_weights(Path(job["model"])),
        "matmul_flops_per_s": matmul_flops_per_s(job["optimisation"]["precision"]),
    }


def matrix_weights(model: Path) -> dict[str, int]:
    """Weights that are multiplied with every token's state: in the layers' matrices and in the head's."""
    from safetensors import safe_open

    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    layers = 0
    for path in sorted(model.glob("*.safetensors")):
        with safe_open(path, framework="numpy") as file:
            shapes = [file.get_slice(name).get_shape() for name in file.keys() if ".layers." in name]  # noqa: SIM118
        layers += sum(shape[0] * shape[1] for shape in shapes if len(shape) == 2)
    return {"layers": layers, "head": config["vocab_size"] * config["hidden_size"]}


def peak_bytes() -> int:
    """The most memory that this process took: of the GPU where it trains on one, else of the machine."""
    import torch

    from slmops.evaluate.process import peak_rss_bytes

    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else peak_rss_bytes()


def matmul_flops_per_s(precision: str) -> float:
    """What the machine makes of a product of two square matrices, median; 2 n^3 operations each."""
    import torch

    from slmops.models.device import fastest_device

    device, size = fastest_device(), MATRIX[fastest_device()]
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    left, right = (torch.rand(size, size, device=device, dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(MULTIPLICATIONS):
        begun = time.perf_counter()
        torch.matmul(left, right)
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
    return 2 * size**3 / median(seconds)


def _examples(rows: Sequence[Mapping[str, Any]], answers: str | None = None) -> list[Example]:
    import numpy as np

    from slmops.teach.answers import load_answers
    from slmops.train.examples import Example, SoftTargets

    soft: list[SoftTargets | None] = [None] * len(rows)
    if answers:
        kept = load_answers(Path(answers))
        soft = [SoftTargets(answer.top_ids.astype(np.int64), answer.top_log_probs) for answer in kept]
    pairs = zip(rows, soft, strict=True)
    return [Example(tuple(row["prompt"]), tuple(row["answer"]), targets) for row, targets in pairs]


def _loaded(folder: str) -> Any:
    import torch

    from slmops.models.source import load_model

    return load_model(Path(folder), dtype=torch.float32)


def _losses(model: Any, examples: Sequence[Example], objective: Any) -> dict[str, float]:
    """Each term of the loss on `examples`, in nats per answer token."""
    import torch

    from slmops.train.collate import collate
    from slmops.train.objectives.imitate import Imitation

    imitation = Imitation(objective, model)
    with torch.no_grad():
        terms = imitation.terms(model, collate(examples, pad=0))
    return {name: float(value) for name, (_, value) in terms.items()}


JOBS = {"models": models, "teach": teach, "fit": fit}


def main(work: Path, name: str) -> None:
    import torch

    job = json.loads((work / f"{name}.json").read_text(encoding="utf-8"))
    torch.set_num_threads(job["threads"])
    # A folder of its own, or a training would go on from the checkpoint of another.
    found = JOBS[job["job"]](job, work / name)
    (work / f"{name}.found.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
