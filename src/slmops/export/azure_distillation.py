"""A recipe's distillation as a job of Azure Machine Learning: the same rows, the same teacher, a student of Azure's.

The form is that of `azure-ai-ml` 1.35 (`DistillationJobSchema`, type `distillation`, label generation). The package is
not needed here: what may stand in the files is checked against its schema in the tests.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from slmops.data.read import read_jsonl, write_jsonl
from slmops.errors import BadInput
from slmops.export.azure_readme import key_variable, readme
from slmops.export.azure_rows import CONVERSATION, TASK_TYPES, Chats, chats_of, check_enough
from slmops.privacy.redaction import redactor
from slmops.recipe.models import Recipe
from slmops.recipe.privacy import is_loopback
from slmops.recipe.teachers import EndpointTeacher
from slmops.tasks import task_of

_STUDENT = re.compile(r"azureml://registries/[^/\s]+/models/[^/\s]+/versions/[^/\s]+")
_CONNECTION = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_-]{2,32}")
_MOST_AT_A_TIME = 100


@dataclass(frozen=True)
class DistillationJob:
    """What is to be written, checked before anything is read.

    Attributes:
        student: id of a model in a registry of Azure, which is what Azure trains.
        out: a folder that is empty or not there yet.

    Raises:
        BadInput: Azure has no task of this kind, no use for the teacher, or no such student; or `out` holds something.
    """

    recipe: Recipe
    student: str
    out: Path

    def __post_init__(self) -> None:
        kind = self.recipe.task.kind
        if kind not in TASK_TYPES:
            raise BadInput(
                f"Azure ML distils no task of kind {kind}; it has {', '.join(TASK_TYPES)}",
                hint="slmops run distils it here",
            )
        _check_teacher(self.recipe)
        if not _STUDENT.fullmatch(self.student):
            raise BadInput(
                f"--student {self.student}: no id of a model in a registry of Azure",
                hint="such as azureml://registries/azureml/models/Phi-3.5-mini-instruct/versions/6",
            )
        if self.out.exists() and (not self.out.is_dir() or any(self.out.iterdir())):
            raise BadInput(f"{self.out} exists already and is not empty", hint="choose another folder")

    @property
    def task_type(self) -> str:
        """As Azure calls it."""
        return TASK_TYPES[self.recipe.task.kind]

    @property
    def teacher(self) -> EndpointTeacher:
        assert isinstance(self.recipe.teacher, EndpointTeacher)  # noqa: S101 - checked
        return self.recipe.teacher

    def write(self, data: Path) -> tuple[list[Path], list[str]]:
        """Write the job, its rows, the connection to its teacher and a README.

        Args:
            data: the artifact of the stage `data`.

        Returns:
            The files, and what whoever runs the job has to know.

        Raises:
            BadInput: a file would have fewer rows than Azure takes, or no system message; nothing is written then.
        """
        train, validation = self._chats(data, "train", "pool"), self._chats(data, "validation")
        for chats, name in ((train, "train.jsonl"), (validation, "validation.jsonl")):
            check_enough(chats, self.task_type, name)
        notes = list(self._notes(train, validation))
        texts = {
            "job.yaml": _yaml(self.job()),
            "connection.yaml": _key_is_given(self.teacher) + _yaml(self.connection()),
            "README.md": readme(self.recipe.name, self.teacher, len(train.records), len(validation.records), notes),
        }
        self.out.mkdir(parents=True, exist_ok=True)
        write_jsonl(self.out / "train.jsonl", train.records)
        write_jsonl(self.out / "validation.jsonl", validation.records)
        for name, text in texts.items():
            (self.out / name).write_text(text, encoding="utf-8")
        return [self.out / name for name in ("train.jsonl", "validation.jsonl", *texts)], notes

    def job(self) -> dict[str, Any]:
        """`job.yaml` as plain data.

        It names the connection that holds the key and has no place for one: what a job says of its connection is kept
        in the job's properties, which all who may read the workspace see.
        """
        recipe, teacher = self.recipe, self.teacher
        connection = {"type": "custom", "name": teacher.name, "target": _endpoint(teacher)}
        inference = {"temperature": teacher.temperature, "max_tokens": recipe.task.max_answer_tokens}
        if teacher.top_p is not None:
            inference["top_p"] = teacher.top_p
        return {
            "type": "distillation",
            "display_name": recipe.name,
            "experiment_name": recipe.name,
            "data_generation_type": "label_generation",
            "data_generation_task_type": self.task_type,
            "training_data": {"type": "uri_file", "path": "./train.jsonl"},
            "validation_data": {"type": "uri_file", "path": "./validation.jsonl"},
            "teacher_model_endpoint_connection": {**connection, "credentials": {"type": "none"}},
            "teacher_model_settings": {
                "inference_parameters": inference,
                "endpoint_request_settings": {"request_batch_size": min(teacher.concurrency, _MOST_AT_A_TIME)},
            },
            "student_model": self.student,
            "hyperparameters": {"n_epochs": str(math.ceil(recipe.train.epochs))},
            "outputs": {"registered_model": {"type": "mlflow_model", "name": recipe.name}},
        }

    def connection(self) -> dict[str, Any]:
        """`connection.yaml` as plain data, without the key: it is given to the command that makes the connection."""
        return {"name": self.teacher.name, "type": "serverless", "endpoint": _endpoint(self.teacher)}

    def _chats(self, data: Path, *sides: str) -> Chats:
        rows = [row for side in sides for row in read_jsonl(data / f"{side}.jsonl")]
        finder = redactor(self.recipe.privacy)
        return chats_of(rows, task_of(data), self.task_type, self.teacher.system, finder)

    def _notes(self, train: Chats, validation: Chats) -> Iterator[str]:
        for reason, count in (train.left_out + validation.left_out).items():
            yield f"{count} {reason} are left out: Azure takes whole ones, in which both sides speak in turn."
        if self.task_type != CONVERSATION:
            yield "The answers of the labelled rows are not in the files: Azure's teacher answers every row itself."
        if taken := (train.redacted + validation.redacted).total():
            yield (
                f"Placeholders stand for {taken} values that the recipe's `privacy` takes out. Nothing puts them back "
                "there, so the student learns placeholders."
            )
        if self.recipe.teach.budget.model_fields_set:
            yield "Azure knows no budget: `teach.budget` does not hold there."
        for part in ("write", "converse", "reason"):
            if getattr(self.recipe.teach, part):
                yield f"What `teach.{part}` would have the teacher write is not in the files."


def _check_teacher(recipe: Recipe) -> None:
    if not recipe.teachers:
        raise BadInput("a job of Azure has a teacher, and this recipe has none", hint="name one in `teachers`")
    if len(recipe.teachers) > 1:
        raise BadInput(f"a job of Azure has one teacher, and there are {len(recipe.teachers)}", hint="keep one")
    teacher = recipe.teacher
    if not isinstance(teacher, EndpointTeacher):
        raise BadInput(
            f"the teacher {teacher.name} runs here, and a job of Azure asks one behind an endpoint",
            hint="give a teacher of kind: endpoint",
        )
    if is_loopback(teacher.base_url):
        raise BadInput(f"the teacher {teacher.name} is at {teacher.base_url}, where Azure cannot reach it")
    if teacher.key_env and not teacher.key_env.isidentifier():
        raise BadInput(f"{json.dumps(teacher.key_env)} is no name of an environment variable", hint="mend key_env")
    if teacher.temperature > 1:
        raise BadInput(
            f"the teacher {teacher.name} has the temperature {teacher.temperature:g}, and Azure takes 0 to 1",
            hint="--set teachers.0.temperature=1",
        )
    if not _CONNECTION.fullmatch(teacher.name):
        raise BadInput(
            f"the teacher's name {json.dumps(teacher.name)} cannot be that of a connection",
            hint="Azure takes 3 to 33 letters, digits, `-` and `_`: --set teachers.0.name=teacher",
        )


def _endpoint(teacher: EndpointTeacher) -> str:
    """The address as Azure takes it: it puts `/v1/chat/completions` behind."""
    return teacher.base_url.rstrip("/").removesuffix("/v1")


def _yaml(content: dict[str, Any]) -> str:
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)


def _key_is_given(teacher: EndpointTeacher) -> str:
    return f'# The key stands in no file. The command gives it: --set api_key="${key_variable(teacher)}"\n'
