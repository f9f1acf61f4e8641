"""What writing will cost at most, and which rows it will bring: the same work as later, with nobody who answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from slmops.endpoints.money import Cost
from slmops.recipe.teachers import EndpointTeacher, TransformersTeacher
from slmops.recipe.writing import Converse, Draws, Reason, Write
from slmops.tasks import Row, Task
from slmops.teach.asking import ForecastAsker, Remote, Sampled
from slmops.teach.converse import converse
from slmops.teach.endpoint import Forecast, Pool, is_paid, longest
from slmops.teach.judging import cases, decide
from slmops.teach.solve import solve_rows
from slmops.teach.write import longest_bytes, wanted_rows, write_rows

Find = Callable[[Iterable[str]], Mapping[str, Mapping[str, Any]]]
Sides = Mapping[str, Sequence[Row]]
"""Rows by their side: `train`, `validation`, `test` and `pool`."""


@dataclass
class Foretold:
    """What is to be expected of a teacher behind an endpoint that writes.

    Attributes:
        most: of the requests whose replies are not known.
        rows: for the pool that follow from what is known.
        unknown: and as many more, as long as they may be.
    """

    most: Cost = field(default_factory=Cost)
    rows: list[Row] = field(default_factory=list)
    unknown: list[Row] = field(default_factory=list)


def foretell_writing(remote: Remote, settings: Write, task: Task, sides: Sides, find: Find, seed: int) -> Foretold:
    """Of `write_rows`."""
    asker, wanted = ForecastAsker(remote, settings, find), wanted_rows(settings, sides["train"], task)
    written = write_rows(asker, settings, task, sides["train"], sides, seed=seed)
    longest, missing = longest_bytes(settings, sides["train"]), sum(wanted.values()) - len(written.rows)
    unknown = [{"id": f"{written.prefix}-unknown-{n}", "input": f"{n:x>{longest}}"} for n in range(missing)]
    return Foretold(asker.most, written.rows, unknown)


def foretell_talks(
    remote: Remote, user: Remote | None, settings: Converse, task: Task, sides: Sides, find: Find, seed: int
) -> Foretold:
    """Of `converse`; rows that are not known are among `unknown` as those that are.

    Args:
        user: see `playing`.
    """
    asker = player = ForecastAsker(remote, settings, find, longest=True)
    if user is not remote:
        player = ForecastAsker(user, settings, find, longest=True, keys=asker.keys)
    talks = converse(asker, settings, task, sides["train"], sides, seed=seed, user=player)
    return Foretold(asker.most if player is asker else asker.most + player.most, [], talks.rows)


def playing(remote: Remote, user: EndpointTeacher | TransformersTeacher | None) -> Remote | None:
    """Who plays the user to a teacher behind an endpoint: `remote`, that teacher itself, or another one; None where
    that is a model on this machine.
    """
    if user is None:
        return remote
    return Remote(user, remote.privacy, part="user") if isinstance(user, EndpointTeacher) else None


def foretell_solutions(remote: Remote, settings: Reason, task: Task, rows: Sequence[Row], find: Find) -> Foretold:
    """Of `solve_rows`."""
    asker = ForecastAsker(remote, settings, find)
    solve_rows(asker, settings, task, rows)
    return Foretold(asker.most)


def foretell_judging(
    remote: Remote, pools: Sequence[Pool], here: int, task: Task, rows: Sequence[Row], find: Find, seed: int
) -> Forecast:
    """Of a judge: what it is asked on each row, whose answers all differ and are as long as they may be where nobody
    knows them. A token of an answer counts as one that the judge reads.

    Args:
        pools: of the endpoints that answer.
        here: how many teachers answer that run here.
    """
    draws = list[Mapping[str, str]]()
    for pool in pools:
        names = range(len(draws), len(draws) + pool.teacher.n)
        draws += pool.texts(find(pool.keys), [f"{n:x>{longest(pool.teacher, task)}}" for n in names])
    for n in range(here):
        draws.append(dict.fromkeys([row["id"] for row in rows], f"{n:y>{task.max_answer_tokens}}"))
    judge = remote.teacher
    open_, _ = cases(task, rows, draws, system=judge.system, seed=seed)
    asker = ForecastAsker(remote, Sampled(judge.temperature, judge.top_p), find)
    decide(asker, open_, {})
    return Forecast(judge, len(rows), asker.most.requests, asker.most, is_paid(judge, asker.most))


def foretell(
    remote: Remote,
    draws: Iterable[Draws | None],
    task: Task,
    sides: Sides,
    find: Find,
    seed: int,
) -> tuple[Cost, list[Row]]:
    """What all writing of a run costs at most, and the pool as it may be then.

    Args:
        draws: the parts of a recipe that ask for something to be written, in the order of the run.
    """
    most, pool = Cost(), list(sides["pool"])
    for settings in draws:
        held = {**sides, "pool": pool}
        match settings:
            case Write():
                told = foretell_writing(remote, settings, task, held, find, seed)
            case Converse():
                told = foretell_talks(remote, playing(remote, settings.user), settings, task, held, find, seed)
            case Reason():
                labelled = [*sides["train"], *sides["validation"]]
                told = foretell_solutions(remote, settings, task, labelled, find)
            case _:
                continue
        most += told.most
        pool += [*told.rows, *told.unknown]
    return most, pool
