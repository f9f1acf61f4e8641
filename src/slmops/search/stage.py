"""The search for the best way to ship a model, as a stage of a run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from slmops.compress.stage import Convert
from slmops.data.read import read_jsonl
from slmops.data.stage import HeldOut, HeldOutSettings
from slmops.errors import Interrupted, SlmopsError
from slmops.evaluate.compare import compare
from slmops.evaluate.limit import DoesNotFit
from slmops.evaluate.stage import Score, ScoreSettings
from slmops.pipeline.stage import Asks, Context, Node
from slmops.recipe.compress import CompressSettings
from slmops.recipe.search import SearchSettings
from slmops.recipe.settings import Settings
from slmops.search.candidates import candidates
from slmops.search.choice import Candidate, best, closest, finalists
from slmops.search.outcome import judge, outcome
from slmops.tasks import task_of
from slmops.tasks.base import Task
from slmops.train.stage_recover import Recover, RecoverSettings

SCREEN_REQUESTS, REQUESTS = 4, 40
"""Timed one by one: of every candidate, and of a finalist."""


class FindSettings(Settings):
    """What is searched for, and what of the shipped model is not.

    With `recover` candidates are also tried that recover from their rounding; its `ships` is each one's own then.
    """

    ships: CompressSettings
    search: SearchSettings
    recover: RecoverSettings | None = None


class Search(Asks):
    """`model` (a Hugging Face folder) and `data` → `model/` in the best format that was found, `front.json`,
    `evidence.json` and `gates.json`. To recover, a model needs what it learned from: `carved`, `answers` and perhaps
    `teacher`; where tokens are left out, those of `answers` are kept.

    Every candidate is converted, and screened in a process of its own that has the device's threads and memory; those
    that no other beats answer all rows beside the model itself. Where none stays within the bounds for sure, the
    nearest is put into `model/`, and `gates.json` says what it misses: the gates of the run fail then.

    Raises:
        SlmopsError: no candidate could be measured.
    """

    name: ClassVar[str] = "search"
    # What is asked for shapes the result as much as what is done here.
    version: ClassVar[int] = 3 + Convert.version + Score.version + HeldOut.version + Recover.version
    libraries: ClassVar[tuple[str, ...]] = tuple(
        sorted({*Convert.libraries, *Score.libraries, *Recover.libraries, "scipy", "numpy"})
    )

    def run(self, inputs: Mapping[str, Path], settings: FindSettings, context: Context) -> Mapping[str, float | str]:
        search = settings.search
        trial = Trial(settings, tuple(inputs), task_of(inputs["data"]), context)
        tried = trial.screened()
        able = [one for one in tried if one.state == "screened out"]
        if not able:
            raise SlmopsError(_nothing(tried), hint=_more(tried))
        measured = trial.measured(finalists(able, search.minimise, search.finalists))
        proven = [one for one in measured if one.proven]
        ships = best(proven, search.minimise) if proven else closest(measured, trial.headline, search.minimise)
        shutil.copytree(trial.folders[f"convert:{ships.name}"] / "model", context.out / "model")
        evidence = trial.evidence_for(ships.name)
        _write(context.out / "evidence.json", evidence)
        _write(context.out / "front.json", outcome(tried, ships, search, evidence))
        _write(context.out / "gates.json", ships.verdicts)
        failed = sum(verdict["state"] != "pass" for verdict in ships.verdicts)
        return {"ships": ships.name, "candidates": len(tried), "finalists": len(measured), "gates_failed": failed}


@dataclass
class Trial:
    """Candidates being made and measured; `given` are the names of the search's own inputs."""

    settings: FindSettings
    given: Sequence[str]
    task: Task
    context: Context

    def __post_init__(self) -> None:
        search = self.settings.search
        self.folders: dict[str, Path] = {}
        self.headline = self.task.figures()[0].name
        for node, most in (("rows", None), ("rows:screen", search.screen_rows)):
            settings = HeldOutSettings(side=search.rows, most=most)
            self._make(Node(node, HeldOut, settings, {"data": "data"}))
        self.rows = read_jsonl(self.folders["rows"] / "test.jsonl")

    def screened(self) -> list[Candidate]:
        """Every candidate, screened where it can be made and fits."""
        found = []
        made = candidates(self.settings.search.candidates, self.settings.ships)
        for name, ships in made.items():
            found.append(one := Candidate(name))
            try:
                one.screen = self._screen(name, ships)
            except Interrupted:
                raise
            except DoesNotFit as error:
                one.state, one.why = "does not fit", str(error)
            except SlmopsError as error:
                one.state, one.why = "failed", str(error)
        return found

    def measured(self, chosen: Sequence[Candidate]) -> list[Candidate]:
        """The candidates `chosen`, with what their answers to all rows say beside those of the model itself."""
        score = self._score(REQUESTS, answers=True)
        source = ScoreSettings(latency_requests=1, threads=0)
        self._make(Node("score:student", Score, source, {"model": "model", "data": "rows"}))
        for one in chosen:
            model = {"model": f"convert:{one.name}", "data": "rows"}
            try:
                self._make(Node(f"score:{one.name}", Score, score, model))
                one.state = "measured"
            except DoesNotFit as error:
                one.state, one.why = "does not fit", str(error)
        done = [one for one in chosen if one.state == "measured"]
        if not done:
            raise SlmopsError(_nothing(chosen), hint=_more(chosen))
        self.scored = {name: self.folders[f"score:{name}"] for name in ("student", *(one.name for one in done))}
        judge(self.task, self.rows, self.scored, done, self.settings.search, self.context.seed)
        return done

    def evidence_for(self, ships: str) -> dict[str, Any]:
        """All models side by side, with the one that ships in its usual role."""
        scored = {"shipped" if name == ships else name: folder for name, folder in self.scored.items()}
        return compare(self.task, self.rows, scored, seed=self.context.seed, reference="student")

    def _screen(self, name: str, ships: CompressSettings) -> Mapping[str, float]:
        given = {"model": "model"} | ({"data": "data"} if ships.reads_rows else {})
        given |= {"answers": "answers"} if ships.trims and "answers" in self.given else {}
        if self.settings.recover and ships.recover:
            given["model"] = self._recover(name, ships.whole.model_copy(update={"recover": None}))
        score = self._score(SCREEN_REQUESTS, answers=False).model_copy(update={"loss": True})
        self._make(
            Node(f"convert:{name}", Convert, ships.model_copy(update={"recover": None}), given),
            Node(f"screen:{name}", Score, score, {"model": f"convert:{name}", "data": "rows:screen"}),
        )
        figures = json.loads((self.folders[f"screen:{name}"] / "probe.json").read_text(encoding="utf-8"))
        return {what: figures[what] for what in ("loss", "latency_p50_ms", "weights_bytes", "peak_rss_bytes")}

    def _recover(self, name: str, ships: CompressSettings) -> str:
        """The node of the model that recovered from being rounded as `ships` says."""
        assert self.settings.recover  # noqa: S101
        read = {what: what for what in self.given if what != "model"} | {"student": "model"}
        self._make(Node(f"recover:{name}", Recover, self.settings.recover.model_copy(update={"ships": ships}), read))
        return f"recover:{name}"

    def _score(self, requests: int, *, answers: bool) -> ScoreSettings:
        device = self.settings.search.device
        return ScoreSettings(
            latency_requests=requests,
            threads=device.threads,
            answers=answers,
            memory_mb=device.memory_mb,
        )

    def _make(self, *nodes: Node) -> None:
        self.folders |= self.context.make(nodes)


def _nothing(tried: Sequence[Candidate]) -> str:
    return "no candidate could be measured: " + "; ".join(f"{one.name}: {one.why}" for one in tried)


def _more(tried: Sequence[Candidate]) -> str:
    small = any(one.state == "does not fit" for one in tried)
    return "give the device more memory, or try smaller models" if small else "look into the run's log"


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
