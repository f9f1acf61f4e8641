"""The ladder of students on public data: what each keeps of a 135 M teacher, at which size and latency.

The grid is filled over several runs. `--cells GLOB` runs the cells whose names match and that have no record yet, each
by the pipeline in one home, so that a teacher is fitted and answers its pool once for every setting and seed. A cell
leaves its record in results/headline/; in the end all records make the table, and the figures of the students that
validation rows choose. `--list` shows the grid, `--readme` puts table and figure into README.md and docs/headline.md.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from itertools import count
from pathlib import Path

from _contract import RESULTS, missed, publish, put_between
from _headline import banking77, dialogsum, figure, ladder, snips, table
from _headline.cells import Budget, Cell, Student, grid
from _headline.corpus import Corpus
from _headline.records import Folder, Record, estimate_s, fresh
from _headline.running import Work

from slmops.console import duration, screen
from slmops.errors import BadInput, Interrupted, SlmopsError
from slmops.models.device import fastest_device

ROOT = Path(__file__).parents[1]
READERS: Mapping[str, Callable[[Path], Corpus]] = {
    "snips": snips.read,
    "banking77": banking77.read,
    "dialogsum": dialogsum.read,
}
RECORDS: Mapping[Budget, str] = {"laptop": "headline", "gpu": "headline-gpu", "times": "headline-times"}
DRAWINGS: Mapping[Budget, Path] = {budget: ROOT / "docs" / f"{RECORDS[budget]}.svg" for budget in ("laptop", "gpu")}
Groups = Mapping[ladder.Group, Sequence[ladder.Rung]]
README, PAGE = ROOT / "README.md", ROOT / "docs" / "headline.md"

# Too little for a good model, enough to see every figure.
QUICK = Cell(
    "snips",
    "few",
    1,
    Student("language", 2, "first"),
    "text",
    extra=(
        "task.max_answer_tokens=64",
        "teachers.0.fit.epochs=2",
        "teachers.0.fit.batch_tokens=128",
        "teachers.0.fit.freeze_layers=20",
        "teach.min_agreement=0",
        "train.epochs=3",
        "train.max_cut_off=0.99",
        "train.baseline_epochs=3",
        "evaluate.latency_requests=2",
    ),
)


def main() -> None:
    arguments = parsed()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Folder(Path(scratch) if arguments.quick else RESULTS / RECORDS[arguments.budget])
        try:
            failed = work_through(folder, arguments)
        except SlmopsError as error:
            told(error)
            sys.exit(error.exit_code)
    if failed:
        sys.exit(f"failed or refused: {', '.join(failed)}")


def work_through(folder: Folder, arguments: argparse.Namespace) -> list[str]:
    """List the grid, or run cells and show what all records come to; returns the cells that failed."""
    cells = [QUICK] if arguments.quick else grid(arguments.budget)
    if arguments.list:
        print(listing(cells, folder.read(), arguments))
        return []
    if arguments.budget == "gpu" and arguments.cells and fastest_device() == "cpu":
        raise BadInput("PyTorch finds no GPU here", hint="the cells of --budget laptop need none")
    chosen = cells if arguments.quick else chosen_cells(arguments.cells, arguments.budget)
    go = side_by_side if arguments.workers else run
    failed = go(chosen, folder, arguments)
    if arguments.worker or arguments.budget == "times":
        return failed
    show(list(fresh(folder.read(), cells).values()), len(cells), arguments)
    return failed


def parsed() -> argparse.Namespace:
    first, *_ = __doc__.splitlines()
    parser = argparse.ArgumentParser(description=first)
    for task, reader in READERS.items():
        source = " ".join(sys.modules[reader.__module__].__doc__.split("\n\n")[1].split())
        variable = f"SLMOPS_{task.upper()}"
        given = os.environ.get(variable)
        parser.add_argument(
            f"--{task}", type=Path, metavar="DIR", default=given and Path(given), help=f"{source} Or ${variable}."
        )
    parser.add_argument("--cells", metavar="GLOB", help="run these cells, e.g. 'snips.few.tags*'; none unless given")
    parser.add_argument(
        "--budget",
        choices=[*RECORDS],
        default="laptop",
        help="gpu: another grid, trained longer; times: what its students take here",
    )
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="with a GPU: N cells side by side")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no cell that would end later")
    parser.add_argument("--list", action="store_true", help="show the grid and run nothing")
    parser.add_argument("--home", type=Path, default=ROOT / ".slmops", help="folder of the store and the history")
    parser.add_argument("--quick", action="store_true", help="one small cell on a few rows; nothing of it is kept")
    parser.add_argument("--readme", action="store_true", help="put table and figure into README.md and docs")
    arguments = parser.parse_args()
    if arguments.quick and (arguments.readme or arguments.cells or arguments.list):
        parser.error("a quick run is one cell of its own, and its table is none to show")
    if arguments.workers and arguments.budget != "gpu":
        parser.error("cells that are timed run one at a time: --workers is for --budget gpu")
    if arguments.readme and arguments.budget == "times":
        parser.error("times stand in the table of --budget gpu")
    arguments.rows = arguments.home / ("headline-quick" if arguments.quick else "headline")
    return arguments


def chosen_cells(pattern: str | None, budget: Budget) -> list[Cell]:
    """The cells of the grid whose names match; none without a pattern.

    Raises:
        BadInput: a pattern that no cell matches.
    """
    if pattern is None:
        return []
    cells = [cell for cell in grid(budget) if fnmatch(cell.name, pattern)]
    if not cells:
        raise BadInput(f"no cell is called {pattern}", hint=f"--list shows the grid; one is {grid(budget)[0].name}")
    return cells


def corpora(tasks: set[str], arguments: argparse.Namespace) -> dict[str, Corpus]:
    """The data of each task.

    Raises:
        BadInput: a folder was not given, or does not hold the data.
    """
    found = {}
    for task in sorted(tasks):
        folder = getattr(arguments, task)
        if folder is None:
            raise BadInput(
                f"--{task} DIR is missing: the folder with its files", hint="--help says where they are from"
            )
        corpus = READERS[task](folder)
        found[task] = corpus.smaller() if arguments.quick else corpus
    return found


def run(cells: Sequence[Cell], folder: Folder, arguments: argparse.Namespace) -> list[str]:
    """Run the cells that have no record, in order, as far as the time allows; returns those that failed.

    Every cell is made ready before the first one starts, so that what is wrong with one is known at once.
    """
    done = fresh(folder.read(), cells)
    waiting = [cell for cell in cells if cell.name not in done]
    data = corpora({cell.task for cell in waiting}, arguments)
    works, failed = ready(waiting, data, arguments.rows)
    begun, progress = time.monotonic(), screen()
    for work in works:
        name, needs = work.cell.name, estimate_s(work.missing(arguments.home), work.cell, folder.read())
        if time.monotonic() - begun + needs > arguments.minutes * 60:
            progress.note(f"not started, about {duration(needs)}: {name}")
            continue
        progress.note(f"cell {name}, about {duration(needs)}")
        try:
            folder.write(work.run(arguments.home, progress))
        except Interrupted:
            raise
        except SlmopsError as error:
            told(error, name)
            failed.append(name)
    return failed


def side_by_side(cells: Sequence[Cell], folder: Folder, arguments: argparse.Namespace) -> list[str]:
    """Run the cells that have no record by workers, each with its share of the cores; returns those that failed.

    A worker makes all cells of one training. What two of them need, the store lets one make while the other waits.
    """
    done = fresh(folder.read(), cells)
    trainings = list(dict.fromkeys(cell.trained for cell in cells if cell.name not in done))
    ends = time.monotonic() + arguments.minutes * 60
    cores, numbers = sorted(os.sched_getaffinity(0)), count()

    def take_cores() -> None:
        # Of this thread alone, and of the processes that it starts.
        os.sched_setaffinity(0, cores[next(numbers) :: arguments.workers] or cores)

    def work(pattern: str) -> int:
        if time.monotonic() > ends:
            screen().note(f"not started: {pattern}")
            return 0
        told = [*sys.argv[1:], "--workers", "0", "--worker", "--minutes", "inf", "--cells", pattern]
        command = [sys.executable, __file__, *told]
        return subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode

    with ThreadPoolExecutor(arguments.workers, initializer=take_cores) as pool:
        codes = list(pool.map(work, trainings))
    return [pattern for pattern, code in zip(trainings, codes, strict=True) if code]


def ready(cells: Sequence[Cell], data: Mapping[str, Corpus], rows: Path) -> tuple[list[Work], list[str]]:
    """The cells with their graphs, and the names of those that the installed recipe refuses, which is said."""
    works, refused = [], []
    for cell in cells:
        try:
            works.append(Work.of(cell, data[cell.task], rows))
        except BadInput as error:
            told(error, cell.name)
            refused.append(cell.name)
    return works, refused


def told(error: SlmopsError, place: str = "") -> None:
    hint = f" ({error.hint})" if error.hint else ""
    print(f"{place}: {error}{hint}".removeprefix(": "), file=sys.stderr)


def listing(cells: Sequence[Cell], records: Sequence[Record], arguments: argparse.Namespace) -> str:
    """A line for each cell: done, or about how long it will take where its data are given, or why it cannot run."""
    done = fresh(records, cells)
    given = {cell.task for cell in cells if getattr(arguments, cell.task)}
    data = corpora(given, arguments)
    lines = [f"{_state(cell, done, data, records, arguments):>9}  {cell.name}" for cell in cells]
    return "\n".join([*lines, f"{len(done)} of {len(cells)} cells have a record"])


def _state(
    cell: Cell,
    done: Mapping[str, Record],
    data: Mapping[str, Corpus],
    records: Sequence[Record],
    arguments: argparse.Namespace,
) -> str:
    if cell.name in done:
        return "done"
    if cell.task not in data:
        return "waiting"
    try:
        work = Work.of(cell, data[cell.task], arguments.rows)
    except BadInput:
        return "refused"
    return f"{estimate_s(work.missing(arguments.home), cell, records) / 60:.0f} min"


def show(records: Sequence[Record], cells: int, arguments: argparse.Namespace) -> None:
    """Table, figure and line of all records, out of so many `cells`."""
    timed = Folder(RESULTS / RECORDS["times"]).read() if arguments.budget == "gpu" else []
    timed = list(fresh(timed, grid("times")).values())
    found = ladder.rungs(records, timed)
    groups = ladder.grouped(found)
    chosen = {group: ladder.choose(members) for group, members in groups.items()}
    figures, spread = ladder.figures(chosen)
    figures |= {"cells": len(records), "cells_missing": cells - len(records)}
    whole = ladder_text(found, groups, chosen)
    print(f"{whole}\n")
    if arguments.readme:
        write_documents(whole, groups, chosen, missed_words(figures), arguments.budget)
    on = "; ".join(sorted({record["machine"] for record in [*records, *timed]})) or None
    publish(RECORDS[arguments.budget], figures, goals=ladder.GOALS, spread=spread, keep=not arguments.quick, on=on)


def write_documents(
    whole: str, groups: Groups, chosen: Mapping[ladder.Group, ladder.Rung], missed: str, budget: Budget
) -> None:
    """The main task's block into README.md, everything into docs/headline.md, and the figure beside that.

    Raises:
        BadInput: there is nothing of the main task to show.
    """
    main = ("snips", "few")
    if main not in chosen:
        raise BadInput("no student of SNIPS with few labels has a record yet", hint="--cells 'snips.few*' makes some")
    short = f"{table.ladder({main: groups[main]}, chosen, short=True)}\n\n{table.NOTE}"
    drawing = DRAWINGS[budget]
    for path, place, text, picture in (
        (README, RECORDS["laptop"], short, f"docs/{drawing.name}"),
        (PAGE, RECORDS[budget], whole, drawing.name),
    ):
        block = f"```text\n{text}\n```\n\n{missed}\n\n![Quality against latency and size]({picture})\n"
        path.write_text(put_between(path.read_text(encoding="utf-8"), place, block), encoding="utf-8")
    drawing.write_text(figure.draw(groups[main], chosen[main]), encoding="utf-8")


def ladder_text(found: Sequence[ladder.Rung], groups: Groups, chosen: Mapping[ladder.Group, ladder.Rung]) -> str:
    """All that is known, as text."""
    teachers = [rung for rung in found if rung.is_teacher]
    parts = [table.ladder(groups, chosen)] if groups else ["no student has a record yet"]
    trained = ladder.compared(found)
    parts += [table.trainings(trained)] if trained else []
    parts += [table.teachers(teachers)] if teachers else []
    return "\n\n".join([*parts, table.NOTE])


def missed_words(figures: Mapping[str, float]) -> str:
    """Which goals are missed, with what was reached, and how much of the grid is not there yet."""
    reached = {name: f" {figures[name]:.3g}" if name in figures else " not measured" for name in ladder.GOALS}
    said = [f"{name}{reached[name]} (goal {ladder.GOALS[name]:g})" for name in missed(figures, ladder.GOALS)]
    goals = f"Missed goals: {', '.join(said)}." if said else "All goals are met."
    return f"{goals} Of the grid's cells {figures['cells_missing']:.0f} have no record yet."


if __name__ == "__main__":
    main()
