"""A recipe's fine-tuning as a run configuration of Olive: the same rows, the same base, the same adapter."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from slmops.data.read import read_jsonl
from slmops.errors import BadInput
from slmops.models.tokenizer import Tokenizer
from slmops.olive.configuration import OUTPUT, ROWS, Steps, configuration, write_model, write_rows
from slmops.olive.environment import SERIES
from slmops.pipeline.files import files_below
from slmops.recipe.models import Recipe
from slmops.tasks import task_of
from slmops.train.lessons import labelled_examples
from slmops.train.prepare import fitting
from slmops.train.through_olive import modules_of

CONFIG, MODEL = "config.json", "model"

_README = """\
# {name}: fine-tuning by Olive {series}

| file | holds |
| --- | --- |
| `config.json` | the run configuration: one pass, {method} |
| `train.jsonl` | {rows} rows as tokens of the model, with labels at the answers alone |
| `model/` | the model that is tuned, with its chat template |

In this folder, where `olive-ai`, `peft`, `accelerate` and `datasets` are installed{bitsandbytes}:

```sh
olive run --config config.json --disable_telemetry
```

The adapter is in `{out}/adapter` then. Measured, merged and in a bundle it is after

```sh
slmops import olive {out} --data ROWS --task {kind} --out BUNDLE{four_bits}
```

## What is different from a run here

- Rows come in batches of {at_once}, whatever their length, and a step's loss is the mean of its batches' means.
- It computes in {dtype}{measured}; `torch_dtype` in `config.json` says so.
- The validation rows are not used: Olive's trainer goes to the end.
"""


@dataclass(frozen=True)
class OliveJob:
    """What is to be written, checked before anything is read.

    Attributes:
        recipe: with `train.backend: olive`.
        out: a folder that is empty or not there yet.

    Raises:
        BadInput: the recipe has a teacher, or a head that labels.
    """

    recipe: Recipe
    out: Path

    def __post_init__(self) -> None:
        if self.recipe.teachers:
            raise BadInput(
                "the recipe has a teacher, and Olive learns from labelled rows alone",
                hint="slmops run distils; with train.backend: olive the student's training is Olive's",
            )
        if self.recipe.student.head != "language":
            raise BadInput("the student labels its text, and Olive trains models that write", hint="student.head: text")

    def write(self, data: Path, base: Path) -> list[Path]:
        """Write the configuration, the rows, the model and a README.

        Args:
            data: the artifact of the stage `data`.
            base: that of the model as it comes.

        Returns:
            The files.

        Raises:
            BadInput: rows are too long for the model; nothing is written then.
        """
        train, folder = self.recipe.train, base / MODEL
        adapter = train.to_make
        assert adapter  # noqa: S101 - Olive trains nothing else
        every, names = labelled_examples(
            read_jsonl(data / "train.jsonl"), task_of(data), Tokenizer.load(folder), self.recipe.student.head
        )
        examples = fitting(every, names, folder, max_too_long=train.max_too_long)
        steps = Steps.of([len(example) for example in examples], train)
        content = configuration(
            train,
            adapter,
            steps,
            modules=modules_of(folder, train.freeze_layers),
            model=MODEL,
            dtype="float32" if train.precision == "fp32" else "bfloat16",
            on_processor=None,
            seed=self.recipe.seed,
        )
        self.out.mkdir(parents=True, exist_ok=True)
        write_model(folder, self.out / MODEL)
        write_rows(self.out / ROWS, ((example.prompt, example.answer) for example in examples))
        (self.out / CONFIG).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        (self.out / "README.md").write_text(self._readme(len(examples), steps), encoding="utf-8")
        return [self.out / name for name in sorted(files_below(self.out))]

    def _readme(self, rows: int, steps: Steps) -> str:
        train, four = self.recipe.train, self.recipe.train.method == "qlora"
        return _README.format(
            name=self.recipe.name,
            series=SERIES,
            method=train.method,
            rows=rows,
            bitsandbytes=", and `bitsandbytes`" if four else "",
            out=OUTPUT,
            kind=self.recipe.task.kind,
            four_bits=" --four-bits" if four else "",
            at_once=steps.rows,
            dtype="float32" if train.precision == "fp32" else "bfloat16",
            measured=", where a run here measures what is faster" if train.precision == "auto" else "",
        )
