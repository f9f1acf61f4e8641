"""Making a shipped model's probabilities match how often it is right, as a stage of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from slmops.pipeline.stage import Context
from slmops.recipe.settings import Settings, Share

LEAST_ROWS = 30
"""Validation rows; fewer tell nothing of how often a model is right."""

_BATCH = 32


class CalibrateSettings(Settings):
    answered_accuracy: Share = Field(description="Of the answers that are given, where others are held back.")
    threads: int


class Calibrate:
    """`model`, `data` (validation rows) and `answers` (its scored test rows) → `calibration.json`.

    The temperature and the threshold are of the validation rows; the calibration error before and after is that of the
    test rows, which had no part in them. Of fewer than `LEAST_ROWS` validation rows the temperature is 1.
    """

    name: ClassVar[str] = "calibrate"
    version: ClassVar[int] = 2
    libraries: ClassVar[tuple[str, ...]] = ("numpy", "scipy", "onnxruntime-genai", "onnxruntime", "tokenizers")

    def run(
        self, inputs: Mapping[str, Path], settings: CalibrateSettings, context: Context
    ) -> Mapping[str, float | str]:
        import numpy as np

        from slmops.bundle.labels import closed_set, shares
        from slmops.data.read import read_jsonl
        from slmops.evaluate.calibration import calibration
        from slmops.evaluate.temperature import fit_temperature, threshold
        from slmops.tasks import task_of

        task, rows = task_of(inputs["data"]), read_jsonl(inputs["data"] / "validation.jsonl")
        labels = closed_set(task) or ()
        told: dict[str, Any] = {"rows": len(rows), "temperature": 1.0, "answered_accuracy": settings.answered_accuracy}
        if len(rows) >= LEAST_ROWS:
            scores = self._scores(inputs["model"] / "model", task, rows, settings, context)
            right = np.array([labels.index(row["output"]) for row in rows])
            told["temperature"] = fit_temperature(scores, right)
            found = shares(scores, told["temperature"])
            hits = (found.argmax(axis=1) == right).astype(np.float64)
            told["abstain_below"] = threshold(found.max(axis=1), hits, settings.answered_accuracy)
        answers = read_jsonl(inputs["answers"] / "predictions.jsonl")
        given = np.log(np.array([[max(one["probabilities"][label], 1e-300) for label in labels] for one in answers]))
        references = [labels.index(row["output"]) for row in read_jsonl(inputs["data"] / "test.jsonl")]
        for name, temperature in (("ece_before", 1.0), ("ece_after", told["temperature"])):
            found = shares(given, temperature)
            hits = (found.argmax(axis=1) == np.array(references)).astype(np.float64)
            told[name] = calibration(found.max(axis=1), hits)["ece"]
        (context.out / "calibration.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        return {name: value for name, value in told.items() if value is not None}

    def _scores(self, model: Path, task: Any, rows: Any, settings: CalibrateSettings, context: Context) -> Any:
        """Log-likelihood of every label for every row, [rows, labels]."""
        import numpy as np

        from slmops.bundle.labels import label_log_likelihoods
        from slmops.engines import engine_of, load_engine
        from slmops.models.tokenizer import Tokenizer

        engine, tokenizer = load_engine(engine_of(model), model, threads=settings.threads), Tokenizer.load(model)
        texts, parts = [row["input"] for row in rows], []
        with context.progress.task("calibrate", len(texts), "rows") as bar:
            for begin in range(0, len(texts), _BATCH):
                part = texts[begin : begin + _BATCH]
                parts.append(label_log_likelihoods(engine, tokenizer, task, part))
                bar.advance(len(part))
        return np.concatenate(parts).astype(np.float64)
