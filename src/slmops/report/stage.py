"""The model card and the report as stages of a run."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from slmops.pipeline.stage import Context
from slmops.recipe.privacy import PrivacySettings
from slmops.recipe.settings import Settings

if TYPE_CHECKING:
    from slmops.privacy.redaction import Redactor
    from slmops.report.failures import Group

SCORED = "score_"
"""Begins the names of inputs that hold a role's answers to the test rows."""

CARD = "MODEL_CARD.md"


class CardSettings(Settings):
    name: str
    version: str
    recipe: dict[str, Any]


class Card:
    """`data`, `evaluate` and perhaps `healed` (`heal.json`) → `MODEL_CARD.md`, which travels with the bundle."""

    name: ClassVar[str] = "card"
    version: ClassVar[int] = 1
    libraries: ClassVar[tuple[str, ...]] = ("huggingface-hub",)

    def run(self, inputs: Mapping[str, Path], settings: CardSettings, context: Context) -> Mapping[str, float | str]:
        from slmops.report.card import card

        text = card(
            settings.name,
            _read(inputs["evaluate"] / "evidence.json"),
            _read(inputs["evaluate"] / "gates.json"),
            version=settings.version,
            recipe=settings.recipe,
            data=_read(inputs["data"] / "data.json"),
            healed=_read(inputs["healed"] / "heal.json") if "healed" in inputs else None,
        )
        (context.out / CARD).write_text(text, encoding="utf-8")
        return {"bytes": len(text.encode())}


class ReportSettings(Settings):
    recipe: dict[str, Any]
    privacy: PrivacySettings = Field(
        default_factory=PrivacySettings, description="A report travels too: its rows are shown without what this names."
    )

    @property
    def libraries(self) -> tuple[str, ...]:
        """See `PrivacySettings.libraries`."""
        return self.privacy.libraries

    def check_surroundings(self) -> None:
        """Refuse a detector that is not installed, before everything that there is to report is made.

        Raises:
            BadInput: it is not.
        """
        from slmops.privacy.presidio import check_presidio

        if self.privacy.detector == "presidio":
            check_presidio(self.privacy.presidio)


class Report:
    """What a run made → `table.txt` for the terminal, `report.html` for people, `report.json` for machines.

    Needs `data` and `evaluate`. Others add a chapter or a part of one: `bundle` (`manifest.json`), `student_carved`
    (`carve.json`), `parity` (`parity.json` and `gates.json`), `teacher`, further ones by number (`teacher_2`),
    `student` and `baseline` (`history.json` and `training.json`), `curate` (`card.json`), `bought` (`curve.json`),
    `write`, `converse` and `reason` (`data.json` with what they made), `student_healed` (`heal.json`), `front`
    (`front.json`, see `Story.front`), and `score_ROLE` for every role whose answers are to be shown beside the others'.
    """

    name: ClassVar[str] = "report"
    version: ClassVar[int] = 9
    libraries: ClassVar[tuple[str, ...]] = ("jinja2", "phonenumbers", "python-stdnum")

    def run(self, inputs: Mapping[str, Path], settings: ReportSettings, context: Context) -> Mapping[str, float | str]:
        from slmops.privacy.redaction import redactor
        from slmops.report.story import Story
        from slmops.report.table import table
        from slmops.report.write import write_report

        finder = redactor(settings.privacy)
        plain = finder.redact_plain if finder else _as_it_is
        evidence, gates = _read(inputs["evaluate"] / "evidence.json"), _read(inputs["evaluate"] / "gates.json")
        others = [name for name in inputs if re.fullmatch(r"teacher_\d+", name)]
        trained = [name for name in ("teacher", *others, "student", "baseline") if name in inputs]
        data, parity = _rows(inputs), plain(_parity(inputs))
        story = Story(
            name=settings.recipe["name"],
            evidence=evidence,
            gates=gates,
            table=table(evidence, gates, parity),
            recipe=settings.recipe,
            data=data,
            curated=plain(_read(inputs["curate"] / "card.json")) if "curate" in inputs else None,
            bought=_read(inputs["bought"] / "curve.json") if "bought" in inputs else None,
            carved=_read(inputs["student_carved"] / "carve.json") if "student_carved" in inputs else None,
            healed=_read(inputs["student_healed"] / "heal.json") if "student_healed" in inputs else None,
            histories={name.replace("_", " "): _read(inputs[name] / "history.json") for name in trained},
            trainings={name.replace("_", " "): _read(inputs[name] / "training.json") for name in trained},
            examples=_examples(inputs, evidence, finder),
            parity=parity,
            regression=[plain(row) for row in _read(inputs["evaluate"] / "regression.json")],
            front=_read(inputs["front"] / "front.json") if "front" in inputs else None,
            manifest=_read(inputs["bundle"] / "manifest.json") if "bundle" in inputs else None,
            command="slmops run recipe.yaml",
        )
        (context.out / "table.txt").write_text(story.table, encoding="utf-8")
        return {"bytes": write_report(context.out, story), "verdict": story.verdict.title}


def _parity(inputs: Mapping[str, Path]) -> dict[str, Any] | None:
    if "parity" not in inputs:
        return None
    found: dict[str, Any] = _read(inputs["parity"] / "parity.json")
    return found | {"gates": _read(inputs["parity"] / "gates.json")}


def _rows(inputs: Mapping[str, Path]) -> dict[str, Any]:
    """`data.json` of the rows that the student learned from, those that the teacher wrote included."""
    last = next(name for name in ("reason", "converse", "write", "data") if name in inputs)
    found: dict[str, Any] = _read(inputs[last] / "data.json")
    return found


def _as_it_is(value: Any) -> Any:
    return value


def _examples(inputs: Mapping[str, Path], evidence: Mapping[str, Any], finder: Redactor | None) -> list[Group]:
    """Rows that the shipped model gets wrong, beside the answers of every scored role."""
    from slmops.data.read import read_jsonl
    from slmops.report.failures import side_by_side
    from slmops.report.verdict import reference_of, subject_of
    from slmops.tasks import from_description

    answered = {
        name.removeprefix(SCORED): path / "predictions.jsonl"
        for name, path in inputs.items()
        if name.startswith(SCORED)
    }
    texts = {role: [row["text"] for row in read_jsonl(path)] for role, path in answered.items() if path.exists()}
    subject = subject_of(evidence)
    if subject not in texts:
        return []
    return side_by_side(
        from_description(_read(inputs["data"] / "task.json")),
        read_jsonl(inputs["data"] / "test.jsonl"),
        texts,
        figure=evidence["headline"],
        subject=subject,
        reference=reference_of(evidence, subject),
        show=(lambda texts: finder.redact(texts).texts) if finder else tuple,
    )


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
