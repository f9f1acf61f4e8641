"""Measuring one model, and comparing all of them, as stages of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from slmops.pipeline.stage import Context
from slmops.recipe.evaluate import Gates, JudgeSettings, Price, Running
from slmops.recipe.privacy import PrivacySettings
from slmops.recipe.settings import Settings

LABELLED = frozenset({"classification", "nli"})
"""Kinds of task whose answer is one of a closed set: every label gets its probability."""

OPEN = frozenset({"generation", "summarisation", "conversation"})
"""Kinds of task that many answers are right for: the reference answer gets its likelihood."""


class ScoreSettings(Settings):
    latency_requests: int
    threads: int
    answers: bool = True
    memory_mb: int | None = Field(None, description="The process ends where it takes more; null sets no bound.")
    loss: bool = Field(False, description="How likely the reference answers are; of a model that labels, how wrong.")


class Score:
    """`model` and `data` → `probe.json` and `predictions.jsonl`, from a process that loads this model alone.

    Raises:
        DoesNotFit: it took more memory than it may.
    """

    name: ClassVar[str] = "score"
    version: ClassVar[int] = 7
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers", "onnxruntime-genai", "onnxruntime", "tokenizers")

    def run(self, inputs: Mapping[str, Path], settings: ScoreSettings, context: Context) -> Mapping[str, float | str]:
        from slmops.engines import engine_of
        from slmops.evaluate.own_process import in_own_process
        from slmops.evaluate.probe import Job

        rows = inputs["data"] / "test.jsonl"
        task = json.loads((inputs["data"] / "task.json").read_text(encoding="utf-8"))
        model = inputs["model"] / "model"
        job = Job(
            engine=engine_of(model),
            model=str(model),
            task=task,
            rows=str(rows),
            latency_requests=settings.latency_requests,
            threads=settings.threads,
            answers=settings.answers,
            out=str(context.out),
            probabilities=task["kind"] in LABELLED,
            reference_nll=task["kind"] in OPEN,
            loss=settings.loss,
        )
        count = sum(1 for _ in rows.open(encoding="utf-8"))
        total = min(settings.latency_requests, count) + (count if settings.answers else 0)
        with context.progress.task("measure", total, "requests") as bar:
            failed = f"measuring {job.model} failed"
            in_own_process(
                "slmops.evaluate.probe",
                asdict(job),
                context.work,
                failed,
                advance=bar.advance,
                memory_mb=settings.memory_mb,
            )
        figures: dict[str, Any] = json.loads((context.out / "probe.json").read_text(encoding="utf-8"))
        shown = ("latency_p50_ms", "ttft_p50_ms", "tokens_per_s", "peak_rss_bytes", "weights_bytes")
        return {name: figures[name] for name in shown}


class Floor:
    """`data` → the trivial method's predictions: what any model must beat.

    Two methods are tried, the task's own and the most frequent answer; the one that does better on the test rows is
    taken, so that the floor is never lower than need be.
    """

    name: ClassVar[str] = "floor"
    version: ClassVar[int] = 2
    libraries: ClassVar[tuple[str, ...]] = ("rouge-score", "sacrebleu", "scikit-learn")

    def run(
        self,
        inputs: Mapping[str, Path],
        settings: Settings,  # noqa: ARG002 - there are none
        context: Context,
    ) -> Mapping[str, float | str]:
        import time

        from slmops.data.read import read_jsonl, write_jsonl
        from slmops.evaluate.compare import headline
        from slmops.tasks import metrics, task_of
        from slmops.tasks.floor import most_frequent

        task = task_of(inputs["data"])
        train, rows = read_jsonl(inputs["data"] / "train.jsonl"), read_jsonl(inputs["data"] / "test.jsonl")
        started = time.perf_counter()
        fitted = [task.write(answer) for answer in task.floor(train, [row["input"] for row in rows])]
        each_ms = (time.perf_counter() - started) / len(rows) * 1e3
        usual = most_frequent([task.write(row["output"]) for row in train], str) * len(rows)
        texts, reached = {"fitted": fitted, "most_frequent": usual}, {}
        for method, written in texts.items():
            judged = [task.judge(row["output"], task.parse(text)) for row, text in zip(rows, written, strict=True)]
            reached[method] = metrics(task, judged)[headline(task).name]
        method = max(reached, key=reached.__getitem__)
        predictions = ({"id": row["id"], "text": text} for row, text in zip(rows, texts[method], strict=True))
        write_jsonl(context.out / "predictions.jsonl", predictions)
        probe = {"engine": "scikit-learn", "method": method, "methods": reached}
        (context.out / "probe.json").write_text(json.dumps(probe) + "\n", encoding="utf-8")
        return {"fit_and_answer_ms_per_row": each_ms, **reached}


METRIC = "metric:"
"""Begins the names of inputs that are the sources of the user's own figures."""


class JudgeAnswersSettings(Settings):
    judge: JudgeSettings
    unkeyed: ClassVar[Mapping[str, Any]] = {"privacy": {"egress"}}

    engine: str = Field(description="Of a judge on this machine.")
    threads: int
    privacy: PrivacySettings = Field(default_factory=PrivacySettings)

    @property
    def libraries(self) -> tuple[str, ...]:
        """What reads the texts before they leave for a judge."""
        where = self.judge.base_url
        return () if where is None or self.privacy.is_local(where) else self.privacy.libraries

    def check_surroundings(self) -> None:
        """Refuse an endpoint whose key the environment does not have, and a detector that is not installed.

        Raises:
            BadInput: it has not, or is not.
        """
        from slmops.endpoints.client import key_of
        from slmops.privacy.presidio import check_detector

        if self.judge.base_url is not None:
            key_of(self.judge.key_env, "the judge")
            check_detector(self.judge.base_url, self.privacy)


class JudgeAnswers:
    """`data`, `ours` and `theirs` (scored models) and, for a judge on this machine, `model` → `judged.json`.

    A judge behind an endpoint reads placeholders for what `privacy` takes out, and what it says keeps them.
    """

    name: ClassVar[str] = "judge"
    version: ClassVar[int] = 3
    libraries: ClassVar[tuple[str, ...]] = (
        *("numpy", "torch", "transformers", "onnxruntime-genai", "onnxruntime", "tokenizers"),
        *("phonenumbers", "python-stdnum"),
    )

    def run(
        self, inputs: Mapping[str, Path], settings: JudgeAnswersSettings, context: Context
    ) -> Mapping[str, float | str]:
        from slmops.data.read import read_jsonl
        from slmops.evaluate.ask import AskEndpoint, AskLocal, Remembered
        from slmops.evaluate.judge import Answered, drawn, judge
        from slmops.privacy.audit import gate_for
        from slmops.privacy.redaction import redactor_for
        from slmops.tasks import task_of

        wanted = settings.judge
        task = task_of(inputs["data"])
        tests, ours, theirs = (
            read_jsonl(path)
            for path in (inputs["data"] / "test.jsonl", *(inputs[side] / "predictions.jsonl" for side in _SIDES))
        )
        rows = [
            Answered(test["id"], test["input"], task.write(test["output"]), a["text"], b["text"])
            for test, a, b in zip(tests, ours, theirs, strict=True)
        ]
        rows = drawn(rows, wanted.rows, context.seed)
        limit = wanted.max_answer_tokens
        if wanted.base_url is None:
            asked: AskLocal | AskEndpoint = AskLocal.load(
                settings.engine, inputs["model"] / "model", max_tokens=limit, threads=settings.threads
            )
        else:
            kept = context.kept or context.work
            gate = gate_for(wanted.base_url, wanted.model, "judge", settings.privacy, kept)
            asked = AskEndpoint(wanted.base_url, wanted.model, wanted.key_env, limit, wanted.concurrency, gate)
            if finder := redactor_for(wanted.base_url, settings.privacy):
                rows = [Answered(row.id, *finder.redact(row[1:]).texts) for row in rows]
        remembered = Remembered(asked, context.work / "verdicts.jsonl", context.progress)
        judged = judge(remembered, rows, wanted, seed=context.seed)
        (context.out / "judged.json").write_text(json.dumps(judged, indent=2) + "\n", encoding="utf-8")
        figures = {name: value for name, value in judged["figures"].items() if value is not None}
        return {**figures, "unreadable": judged["unreadable"], "reliable": str(judged["reliable"]).lower()}


_SIDES = ("ours", "theirs")


class CompareSettings(Settings):
    gates: dict[str, Gates]
    metrics: list[str] = Field(default_factory=list)
    running: Running = Field(default_factory=Running)
    teacher_price: Price | None = None


class Compare:
    """`data` and one scored input per role → `evidence.json`, `gates.json`, `errors.json` and `regression.json`.

    Roles: `teacher` (as trained), `teacher_same` (on the shipped model's engine and precision), `base` (before it was
    tuned), `baseline`, `student`, `shipped`, `floor`, `released`; a role that is no input is left out of the
    comparison. It is about `shipped`, or where nothing ships, about `student`. Besides them
    there may be `regression` (rows) with `regression_answers`, and `judged`. Inputs called `metric:…` are the files of
    the user's own figures: they are there for the key, and imported by the names in the settings.
    """

    name: ClassVar[str] = "compare"
    version: ClassVar[int] = 4
    libraries: ClassVar[tuple[str, ...]] = ("numpy", "rouge-score", "sacrebleu", "scipy")

    def run(self, inputs: Mapping[str, Path], settings: CompareSettings, context: Context) -> Mapping[str, float | str]:
        from slmops.data.read import read_jsonl
        from slmops.evaluate.compare import compare, errors
        from slmops.evaluate.cost import running_cost
        from slmops.evaluate.outcome import APART, completed, regression_results, write_outcome
        from slmops.tasks import task_of
        from slmops.tasks.custom import load_metrics

        task = task_of(inputs["data"])
        rows = read_jsonl(inputs["data"] / "test.jsonl")
        scored = {role: path for role, path in inputs.items() if role not in APART and not role.startswith(METRIC)}
        metrics = load_metrics(settings.metrics, [figure.name for figure in task.figures()])
        ours = "shipped" if "shipped" in scored else "student"
        evidence = compare(task, rows, scored, seed=context.seed, metrics=metrics, ours=ours)
        # Here and not in the probe: a price that changes is no reason to measure again.
        for role, figures in evidence["models"].items():
            price = settings.teacher_price if role == "teacher" else None
            figures |= running_cost(figures, settings.running, price)
        regression = regression_results(task, inputs)
        evidence = completed(evidence, regression, inputs)
        verdicts = write_outcome(context.out, evidence, settings.gates, regression)
        wrong = errors(task, rows, scored[ours])
        text = json.dumps(wrong, indent=2, ensure_ascii=False) + "\n"
        (context.out / "errors.json").write_text(text, encoding="utf-8")
        kept = {name: value for name, value in evidence["kept"].items() if value is not None}
        failed = sum(verdict["state"] != "pass" for verdict in verdicts)
        return {
            **evidence["models"][ours]["quality"],
            **kept,
            **evidence["savings"],
            "gates_failed": failed,
        }
