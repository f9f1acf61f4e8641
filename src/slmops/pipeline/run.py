"""From a graph to its artifacts: what is there is used, what is missing is made, and everything is recorded."""

from __future__ import annotations

import json
import logging
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from slmops.console import Both, Lines, duration
from slmops.errors import GateFailed, Interrupted
from slmops.pipeline.cluster import check_ray, on_ray
from slmops.pipeline.environment import environment
from slmops.pipeline.executor import Executor, LocalExecutor
from slmops.pipeline.files import storage_errors
from slmops.pipeline.history import History
from slmops.pipeline.home import HOME
from slmops.pipeline.keys import Step, address
from slmops.pipeline.recording import recorded
from slmops.pipeline.stage import NeedsMore, Node, elsewhere, libraries_of
from slmops.pipeline.store import Store
from slmops.pipeline.worker import Made, Worker
from slmops.progress import Progress, Silent
from slmops.recipe.models import Recipe

if TYPE_CHECKING:
    from slmops.teach.endpoint import Forecasts

LOG_EVERY_SECONDS = 60.0


@dataclass(frozen=True)
class RunResult:
    """What a run made, by node id. `log` is its log file; `failed_gates` says which figures miss their bounds."""

    id: str
    name: str
    artifacts: Mapping[str, Made]
    seconds: float
    log: Path
    failed_gates: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        return GateFailed.exit_code if self.failed_gates else 0


@dataclass(frozen=True)
class Planned:
    """What a run would do with one node."""

    node: str
    stage: str
    key: str
    cached: bool


def run(recipe: Recipe, *, home: Path = HOME, progress: Progress | None = None) -> RunResult:
    """Run a recipe from data to report; see `run_graph`. A bundle that passes its gates is put to `bundles/<name>`."""
    from slmops.bundle import place_bundle
    from slmops.pipeline.plan import nodes_for

    result = run_graph(
        nodes_for(recipe),
        name=recipe.name,
        resolved_recipe=recipe.resolved(),
        seed=recipe.seed,
        home=home,
        progress=progress,
        executor=executor_of(recipe),
    )
    if "bundle" in result.artifacts and not result.failed_gates:
        place_bundle(result.artifacts["bundle"].path, bundle_folder(recipe, home))
    return result


def executor_of(recipe: Recipe) -> Executor:
    """What does the work of a run of `recipe`.

    Raises:
        BadInput: it asks for Ray, which is not installed.
    """
    if recipe.executor == "local":
        return LocalExecutor()
    check_ray()
    return LocalExecutor(spread=on_ray)


def bundle_folder(recipe: Recipe, home: Path = HOME) -> Path:
    """Where a run of `recipe` puts its bundle: `bundles/` beside the home, which is here unless it was moved."""
    return home.parent / "bundles" / (recipe.bundle.name or recipe.name)


def plan(recipe: Recipe, *, home: Path = HOME) -> list[Planned]:
    """What `run` would do; nothing is written."""
    from slmops.pipeline.plan import nodes_for

    return plan_graph(nodes_for(recipe), seed=recipe.seed, home=home)


def forecast(recipe: Recipe, *, home: Path = HOME) -> Forecasts | None:
    """What `run` would ask a teacher behind an endpoint, and what that costs at most; None where it asks nothing.

    Raises:
        BadInput: see `plan`.
    """
    from slmops.pipeline.plan.spending import forecast_of

    told = forecast_of(recipe, home)
    if told is None or not told.most.requests:
        return None
    cached = any(step.cached for step in plan(recipe, home=home) if step.node == "teach")
    return None if cached else told


def plan_graph(nodes: Sequence[Node], *, seed: int, home: Path = HOME) -> list[Planned]:
    """The nodes in the order of a run, and which of their artifacts exist.

    Raises:
        BadInput: see `address`; or what a stage needs besides its inputs is missing.
    """
    steps, store = address(nodes, seed), Store(home)
    _check_surroundings(steps, store)
    return [
        Planned(step.node.id, step.node.stage.name, step.key, cached=store.find(step.key) is not None) for step in steps
    ]


def _check_surroundings(steps: Sequence[Step], store: Store) -> None:
    """Refuse now what would come to light only when the work of the stages before is done."""
    for step in steps:
        if isinstance(step.node.settings, NeedsMore) and store.find(step.key) is None:
            step.node.settings.check_surroundings()


def run_graph(
    nodes: Sequence[Node],
    *,
    name: str,
    resolved_recipe: Mapping[str, Any],
    seed: int,
    home: Path = HOME,
    progress: Progress | None = None,
    executor: Executor | None = None,
) -> RunResult:
    """Make what is missing, in order, and record the run below `home`.

    A stage whose key is in the store does not run. A failing gate is no error: see `RunResult.exit_code`.

    Raises:
        BadInput: the graph, a source or `home` cannot be used, or what a stage needs is missing.
        Interrupted: Ctrl-C or SIGTERM; the state is saved.
        SlmopsError: from a stage, or the disk is full.
        Exception: a stage's bug; its traceback is in the log, and a note on the error names the log.
    """
    steps = address(nodes, seed)
    started = time.monotonic()
    progress = progress or Silent()
    history, store = History(home), Store(home)
    _check_surroundings(steps, store)
    libraries = {library for step in steps for library in libraries_of(step.node)}
    others = {name: version for step in steps for name, version in elsewhere(step.node).items()}
    with (
        storage_errors(store.home),
        store.in_use(on_wait=lambda: progress.note("waiting for `slmops store gc`")),
        recorded(history, name, resolved_recipe, steps, environment(libraries, others)) as recording,
        _logged(recording.folder / "run.log") as log,
        _stopped_gently(),
    ):
        store.tidy()
        told = Both(progress, Lines(log.info, every=LOG_EVERY_SECONDS))
        told.note(f"run {recording.id} of {name}: {len(steps)} stages")
        worker = Worker(store, recording, executor or LocalExecutor(), told, log)
        made: dict[str, Made] = {}
        for position, step in enumerate(steps, 1):
            made[step.node.id] = worker.do(step, made, f"[{position:>{len(str(len(steps)))}}/{len(steps)}]")
        seconds = time.monotonic() - started
        told.note(f"run {recording.id} done in {duration(seconds)}")
        log_path = recording.folder / "run.log"
        result = RunResult(recording.id, name, made, seconds, log_path, _failed_gates(made.values()))
        recording.exit_code = result.exit_code
    return result


def _failed_gates(made: Iterable[Made]) -> tuple[str, ...]:
    """What the gates of a run say. A stage that judges gates reports how many failed as the figure `gates_failed`
    and writes `gates.json`, a list of objects with `state` and `message`. Of nodes such as `evaluate:NAME` the name is
    told too.
    """
    messages = []
    for artifact in made:
        if artifact.metrics.get("gates_failed"):
            gates = json.loads((artifact.path / "gates.json").read_text(encoding="utf-8"))
            _, _, name = artifact.node.partition(":")
            messages += [(f"{name}: " if name else "") + _why(gate) for gate in gates if gate["state"] != "pass"]
    return tuple(messages)


def _why(gate: Mapping[str, str]) -> str:
    return gate["message"] if gate["state"] == "fail" else f"{gate['message']} ({gate['state']})"


@contextmanager
def _stopped_gently() -> Iterator[None]:
    """Let SIGTERM stop the work as Ctrl-C does, and call both what they are.

    Raises:
        Interrupted: the user stopped the work.
    """

    def stop(_signal: int, _frame: object) -> NoReturn:
        raise KeyboardInterrupt

    # Only a process's main thread may say how signals are taken.
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, stop) if main else None
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted("interrupted; the state is saved", hint="the same command goes on from there") from None
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)


class _RunLog(logging.FileHandler):
    """A log that never hides the error that matters, such as a full disk, behind one of its own."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (the name is logging's)
        pass


@contextmanager
def _logged(path: Path) -> Iterator[logging.Logger]:
    """Everything that slmops logs goes to `path` for the length of the block."""
    log = logging.getLogger("slmops")
    handler = _RunLog(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield log
    finally:
        log.setLevel(before)
        log.removeHandler(handler)
        handler.close()
