"""What a teacher writes besides answers, as stages of a run: rows for the pool, and solutions of labelled rows.

Each takes an artifact of rows (`data`) and gives another, which whatever trains reads in its place.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from slmops.pipeline.stage import Context
from slmops.recipe.teachers import EndpointTeacher
from slmops.recipe.writing import Converse, Draws, Reason, Write
from slmops.teach.paying import ASKED, Asked, EndpointAsking, asked_before, opened

if TYPE_CHECKING:
    from slmops.endpoints.money import Cost
    from slmops.tasks import Row
    from slmops.teach.asking import Asker, Remote
    from slmops.teach.foretold import Find, Foretold
    from slmops.teach.write import Written

SIDES = ("train", "validation", "test", "pool")
FILES = (*(f"{side}.jsonl" for side in SIDES), "dropped.jsonl", "task.json", "data.json")
"""Of an artifact of rows."""

LIBRARIES = ("onnxruntime-genai", "onnxruntime", "torch", "transformers", "tokenizers")


class WriteSettings(Asked):
    write: Write


class ConverseSettings(Asked):
    """The input `user` is who plays the user, where that is another model here; `user`, where it is behind an endpoint.

    Neither: whoever is the assistant.
    """

    unkeyed: ClassVar[Mapping[str, Any]] = {**Asked.unkeyed, "user": EndpointAsking.unkeyed["teacher"]}

    converse: Converse = Field(description="Without its `user`.")
    user: EndpointTeacher | None = None

    @property
    def bought(self) -> list[EndpointTeacher]:
        return [*super().bought, *([self.user] if self.user else [])]

    def check_surroundings(self) -> None:
        """As of one that is asked alone, for both."""
        super().check_surroundings()
        if self.endpoint and self.user:
            self.endpoint.model_copy(update={"teacher": self.user}).check_surroundings()


class ReasonSettings(Asked):
    reason: Reason


class WriteRows:
    """`data` and, of a teacher that runs here, `model` → `data` with more rows in its pool.

    `data.json` says how many were `written`. Writes `written.jsonl` and `unwritten.jsonl` (what became no row, with the
    reason) beside the files of `data`.
    """

    name: ClassVar[str] = "write"
    version: ClassVar[int] = 2
    libraries: ClassVar[tuple[str, ...]] = LIBRARIES

    def run(self, inputs: Mapping[str, Path], settings: WriteSettings, context: Context) -> Mapping[str, float | str]:
        from slmops.tasks import task_of
        from slmops.teach.foretold import foretell_writing
        from slmops.teach.write import check_enough, wanted_rows, write_rows

        task, sides, write = task_of(inputs["data"]), _sides(inputs["data"]), settings.write
        wanted = wanted_rows(write, sides["train"], task)

        def told(find: Find) -> Foretold:
            return foretell_writing(_remote(settings), write, task, sides, find, context.seed)

        with _asker(inputs, settings, write, context, told) as asking:
            written = write_rows(asking.asker, write, task, sides["train"], sides, seed=context.seed)
        check_enough(written, write, wanted)
        figures = _with_pool(inputs["data"], context.out, written, asking)
        return {"missing": sum(wanted.values()) - len(written.rows), **figures}


class ConverseRows:
    """As `WriteRows`; the rows are talks that the teacher has with itself, or with `user`."""

    name: ClassVar[str] = "converse"
    version: ClassVar[int] = 2
    libraries: ClassVar[tuple[str, ...]] = LIBRARIES

    def run(
        self, inputs: Mapping[str, Path], settings: ConverseSettings, context: Context
    ) -> Mapping[str, float | str]:
        from slmops.tasks import task_of
        from slmops.teach.converse import check_enough, converse
        from slmops.teach.foretold import foretell_talks

        task, sides, talks = task_of(inputs["data"]), _sides(inputs["data"]), settings.converse

        def told(find: Find) -> Foretold:
            remote = _remote(settings)
            user = None if "user" in inputs else _user(settings) or remote
            return foretell_talks(remote, user, talks, task, sides, find, context.seed)

        with _asker(inputs, settings, talks, context, told) as asking:
            user = _player(inputs, settings, context, asking.asker)
            written = converse(asking.asker, talks, task, sides["train"], sides, seed=context.seed, user=user)
        check_enough(written, talks)
        return _with_pool(inputs["data"], context.out, written, asking)


class ReasonRows:
    """`data` and, of a teacher that runs here, `model` → `data` whose labelled rows have solutions as their answers.

    Training rows without a right one are left out; validation rows keep their bare answer then. `data.json` says how
    many were `solved`. Writes `wrong.jsonl`, the solutions that were not taken, beside the files of `data`.
    """

    name: ClassVar[str] = "reason"
    version: ClassVar[int] = 2
    libraries: ClassVar[tuple[str, ...]] = LIBRARIES

    def run(self, inputs: Mapping[str, Path], settings: ReasonSettings, context: Context) -> Mapping[str, float | str]:
        from slmops.data.read import write_jsonl
        from slmops.tasks import task_of
        from slmops.teach.foretold import foretell_solutions
        from slmops.teach.solve import check_enough, solve_rows

        data, reason = inputs["data"], settings.reason
        task, sides = task_of(data), _sides(data)
        labelled = [*sides["train"], *sides["validation"]]

        def told(find: Find) -> Foretold:
            return foretell_solutions(_remote(settings), reason, task, labelled, find)

        with _asker(inputs, settings, reason, context, told) as asking:
            solved = solve_rows(asking.asker, reason, task, labelled)
        check_enough(solved, reason, sides["train"])

        def with_solution(row: Row) -> Row:
            return {**row, "output": solved.solutions.get(row["id"], row["output"])}

        train = [with_solution(row) for row in sides["train"] if row["id"] in solved.solutions]
        validation = [with_solution(row) for row in sides["validation"]]
        _copy(data, context.out, but=("train.jsonl", "validation.jsonl", "data.json"))
        _count(data, context.out, "train", len(train), solved=len(train))
        write_jsonl(context.out / "train.jsonl", train)
        write_jsonl(context.out / "validation.jsonl", validation)
        write_jsonl(context.out / "wrong.jsonl", solved.wrong)
        _keep_asked(data, context.out, asking)
        found = sum(row["id"] in solved.solutions for row in sides["validation"])
        figures = {"solved": len(train), "unsolved": len(sides["train"]) - len(train), "solved_validation": found}
        return {**figures, "wrong": len(solved.wrong), **asking.figures()}


@dataclass
class _Asking:
    """Who is asked, and of an endpoint what for and what that cost."""

    asker: Asker
    keys: Callable[[], Sequence[str]] = lambda: ()
    spent: Cost | None = None

    def figures(self) -> dict[str, float | str]:
        spent = self.spent
        return {"usd": spent.usd, "bought_tokens": spent.tokens, "requests": spent.requests} if spent else {}


@contextmanager
def _asker(
    inputs: Mapping[str, Path], settings: Asked, draws: Draws, context: Context, told: Callable[[Find], Foretold]
) -> Iterator[_Asking]:
    """The teacher, for the length of a block; what an endpoint has cost is known behind it.

    Args:
        told: what is to be expected, given what finds replies by their keys.
    """
    from slmops.teach.asking import EndpointAsker

    if settings.endpoint is None:
        yield _Asking(_here(inputs["model"], settings, draws, context, "replies"))
        return
    with opened(context, settings.endpoint.budget) as ledger:
        expected = told(ledger.answers.find)
        priced = all(teacher.price for teacher in settings.bought)
        context.progress.note(
            f"ask {' and '.join(teacher.model for teacher in settings.bought)}: {expected.most.requests:,} requests at "
            f"most, {expected.most.tokens:,} tokens, " + (f"{expected.most.usd:.2f} USD" if priced else "price unknown")
        )
        beside = _beside(inputs["data"], settings.endpoint, expected)
        asker = EndpointAsker(_remote(settings), draws, ledger, context.kept or context.work, beside, context.progress)
        asking = _Asking(asker, lambda: list(asker.keys))
        yield asking
        ledger.count(asker.keys)
        asking.spent = ledger.spent


def _here(model: Path, settings: Asked, draws: Draws, context: Context, work: str) -> Asker:
    """A model on this machine; what it writes is kept in the folder `work`."""
    from slmops.engines import load_engine
    from slmops.models.tokenizer import Tokenizer
    from slmops.teach.asking import LocalAsker

    assert settings.local  # noqa: S101 - who runs here is asked so
    engine, tokenizer = load_engine(settings.local.engine, model / "model", gpu=True), Tokenizer.load(model / "model")
    batch, folder = settings.local.batch, context.work / work
    return LocalAsker(engine, tokenizer, draws, context.seed, batch, folder, context.progress)


def _player(inputs: Mapping[str, Path], settings: ConverseSettings, context: Context, assistant: Asker) -> Asker | None:
    """Who plays the user, where that is not the assistant itself."""
    from slmops.teach.asking import EndpointAsker

    if "user" in inputs:
        return _here(inputs["user"], settings, settings.converse, context, "user")
    user = _user(settings)
    if user is None:
        return None
    assert isinstance(assistant, EndpointAsker)  # noqa: S101 - a recipe without is refused
    return assistant.beside_it(user)


def _user(settings: ConverseSettings) -> Remote | None:
    from slmops.teach.asking import Remote

    return Remote(settings.user, _remote(settings).privacy, part="user") if settings.user else None


def _remote(settings: Asked) -> Remote:
    """Who is asked behind an endpoint; nobody else costs anything."""
    from slmops.teach.asking import Remote

    assert settings.endpoint  # noqa: S101
    teacher = settings.endpoint.teacher
    # Solutions are learned, as answers are; of texts and talks nobody is to see what was thought.
    reasoning = teacher.reasoning if isinstance(settings, ReasonSettings) else "strip"
    return Remote(teacher, settings.endpoint.privacy, reasoning)


def _beside(data: Path, settings: EndpointAsking, expected: Foretold) -> list[str]:
    """The keys of what counts against the budget besides: what was written before, and answers known to rows."""
    from slmops.data.read import read_jsonl
    from slmops.tasks import task_of
    from slmops.teach.endpoint import keys_of

    rows, teachers = [*read_jsonl(data / "pool.jsonl"), *expected.rows, *expected.unknown], settings.others
    return [*keys_of([settings.teacher, *teachers], task_of(data), rows, settings.privacy), *asked_before(data)]


def _sides(data: Path) -> dict[str, list[Row]]:
    from slmops.data.read import read_jsonl

    return {side: read_jsonl(data / f"{side}.jsonl") for side in SIDES}


def _with_pool(data: Path, out: Path, written: Written, asking: _Asking) -> Mapping[str, float | str]:
    """The files of `data` with what was written behind the pool, and the figures."""
    from slmops.data.read import read_jsonl, write_jsonl

    _copy(data, out, but=("pool.jsonl", "data.json"))
    rows = write_jsonl(out / "pool.jsonl", [*read_jsonl(data / "pool.jsonl"), *written.rows])
    write_jsonl(out / "written.jsonl", written.rows)
    write_jsonl(out / "unwritten.jsonl", written.dropped)
    _count(data, out, "pool", rows, written=len(written.rows))
    _keep_asked(data, out, asking)
    reasons = Counter(row["reason"] for row in written.dropped)
    return {
        "written": len(written.rows),
        "dropped": reasons.total(),
        "pool_rows": rows,
        **asking.figures(),
    }


def _count(data: Path, out: Path, side: str, rows: int, **made: int) -> None:
    """Write `data.json` with the new number of rows of a side, and how many of them the teacher `made`."""
    counts = json.loads((data / "data.json").read_text(encoding="utf-8"))
    counts["rows"][side] = rows
    for name, count in made.items():
        counts[name] = counts.get(name, 0) + count
    (out / "data.json").write_text(json.dumps(counts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _copy(data: Path, out: Path, but: Sequence[str]) -> None:
    for name in FILES:
        if name not in but:
            shutil.copyfile(data / name, out / name)


def _keep_asked(data: Path, out: Path, asking: _Asking) -> None:
    keys = [*asked_before(data), *asking.keys()]
    if keys:
        (out / ASKED).write_text(json.dumps(keys) + "\n", encoding="utf-8")
