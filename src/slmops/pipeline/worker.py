"""One step of a run: its artifact is found in the store, or made and put there."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from slmops.console import duration
from slmops.errors import SlmopsError
from slmops.pipeline.artifact import Artifact, Figure
from slmops.pipeline.executor import Executor, LocalExecutor
from slmops.pipeline.files import content_digest
from slmops.pipeline.job import Job, import_path
from slmops.pipeline.keys import Step, address
from slmops.pipeline.recording import Recording
from slmops.pipeline.stage import Asks, Make, Node
from slmops.pipeline.store import Damaged, Store
from slmops.progress import Progress


@dataclass(frozen=True)
class Made:
    """The artifact of one node: `path` is the folder of its files, `seconds` the time it took to make.

    `cached` says that this run found it and did not make it.
    """

    node: str
    key: str
    path: Path
    metrics: Mapping[str, Figure]
    seconds: float
    cached: bool


@dataclass(frozen=True)
class Worker:
    """Does one step after the other, for one run."""

    store: Store
    recording: Recording
    executor: Executor
    progress: Progress
    log: logging.Logger

    def do(self, step: Step, made: Mapping[str, Made], place: str) -> Made:
        """Find or make the artifact of `step`; `made` holds those of the steps before it."""
        node = step.node.id
        try:
            artifact, cached = self.store.find(step.key), True
            if artifact is None:
                self.recording.step_started(node)
                self.progress.note(f"{place} {node}")
                artifact, cached = self._make(step, made)
        except SlmopsError as error:
            self.log.error("%s: %s", node, error)
            raise
        except Exception as error:
            self.log.exception("%s stopped unexpectedly", node)
            error.add_note(f"in stage `{node}`; log: {self.recording.folder / 'run.log'}")
            raise
        manifest = artifact.manifest
        how = "cached" if cached else f"done in {duration(manifest.seconds)}"
        self.progress.note(f"{place} {node:<24} {how}")
        self.recording.step_done(node, cached=cached, seconds=manifest.seconds, metrics=manifest.metrics)
        return Made(node, step.key, artifact.path, manifest.metrics, manifest.seconds, cached)

    def _make(self, step: Step, made: Mapping[str, Made]) -> tuple[Artifact, bool]:
        """The artifact, and whether another run made it while this one waited."""

        def on_wait() -> None:
            self.progress.note(f"another run is making `{step.node.id}`; waiting")

        with self.store.lock(step.key, on_wait):
            try:
                if artifact := self.store.open(step.key):
                    return artifact, True
            except Damaged as damage:
                self.progress.note(f"{damage}: making it again")
                self.store.drop(step.key)
            draft = self.store.begin(step.key)
            try:
                started = time.monotonic()
                outside = {name: str(path.absolute()) for name, path in step.node.sources.items()}
                job = Job(
                    stage=import_path(step.node.stage),
                    settings_type=import_path(type(step.node.settings)),
                    settings=step.node.settings.model_dump_json(by_alias=True),
                    inputs={name: str(made[node].path) for name, node in step.node.inputs.items()} | outside,
                    out=str(draft.out),
                    work=str(draft.work),
                    kept=str(self.store.kept),
                    seed=step.provenance.seed,
                )
                asks = issubclass(step.node.stage, Asks)
                executor = self._asking(step, made) if asks else self.executor
                metrics = executor.run(job, self.progress, self.log)
                _check_unchanged(step)
                return self.store.commit(draft, step.provenance, metrics, time.monotonic() - started), False
            finally:
                self.store.discard(draft)

    def _asking(self, step: Step, made: Mapping[str, Made]) -> Executor:
        """A stage that asks for others stays here, and its pieces of work go where those of others go."""
        here = self.executor if isinstance(self.executor, LocalExecutor) else LocalExecutor()
        return replace(here, make=self._make_for(step, made))

    def _make_for(self, asking: Step, made: Mapping[str, Made]) -> Make:
        """What the stage of `asking` may ask for other stages with."""
        there = {name: made[node] for name, node in asking.node.inputs.items()}

        def make(nodes: Sequence[Node]) -> Mapping[str, Path]:
            steps = address(nodes, asking.provenance.seed, {name: one.key for name, one in there.items()})
            for step in steps:
                self.recording.step_added(step)
                there[step.node.id] = self.do(step, there, f"[{asking.node.id}]")
            return {step.node.id: there[step.node.id].path for step in steps}

        return make


def _check_unchanged(step: Step) -> None:
    """A source that was edited while its stage read it would put a wrong artifact under the key."""
    for name, path in step.node.sources.items():
        if content_digest(path) != step.provenance.sources[name]:
            raise SlmopsError(f"{path} changed while `{step.node.id}` read it", hint="run the same command again")
