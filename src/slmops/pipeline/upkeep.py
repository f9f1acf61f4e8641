"""Looking after a home: what it holds, whether it is whole, and what can go."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from slmops.errors import BadInput
from slmops.pipeline.files import bytes_below, bytes_freed_without, storage_errors
from slmops.pipeline.history import History
from slmops.pipeline.store import Damaged, Store
from slmops.progress import Progress, Silent


@dataclass(frozen=True)
class Freed:
    """What was deleted, or would be: artifacts, work folders of unfinished stages, and bytes on the disk."""

    artifacts: int
    works: int
    size_bytes: int


@dataclass(frozen=True)
class Usage:
    """What a home holds, in bytes on the disk; a file that several artifacts share counts once."""

    artifacts: int
    artifacts_bytes: int
    works_bytes: int
    total_bytes: int


def collect(home: Path, *, keep_runs: int | None = None, dry_run: bool = False) -> Freed:
    """Delete artifacts, work folders and leftovers below `home` that no run in the history needs.

    Args:
        keep_runs: let go of runs with at least so many later successful runs of the same recipe; None keeps all.
        dry_run: only tell what would be deleted.

    Raises:
        SlmopsError: a run is using the store.
        BadInput: `home` cannot be written.
    """
    if not home.is_dir():
        return Freed(0, 0, 0)
    store = Store(home)
    with storage_errors(home), store.alone():
        needed = History(home).needed_keys(keep_runs)
        artifacts = [key for key in store.whole() if key not in needed]
        works = [path for path in _entries(store.works) if path.name not in needed or store.has(path.name)]
        # Folders without a manifest do not exist, and nobody is writing a draft while the store is held alone.
        husks = [path for path in _entries(store.artifacts) if not store.has(path.name)]
        leftovers = [*works, *husks, *_entries(store.drafts)]
        freed = bytes_freed_without(*(store.artifacts / key for key in artifacts), *leftovers)
        if not dry_run:
            for key in artifacts:
                store.drop(key)
            for path in leftovers:
                shutil.rmtree(path)
            _forget_locks(store)
    return Freed(len(artifacts), len(works), freed)


def artifact_of(home: Path, run: str, node: str) -> Path:
    """The folder that a step of a run made.

    Args:
        run: its id, the beginning of one, or `last`.

    Raises:
        BadInput: there is no such run, it has not come to that step, or what the step made has been freed.
    """
    record = History(home).run(run)
    keys = {step.node: step.key for step in record.steps if step.state == "done"}
    if node not in keys:
        raise BadInput(f"the run {record.id} has made no `{node}`", hint=f"slmops show {record.id}")
    artifact = Store(home).find(keys[node])
    if artifact is None:
        raise BadInput(f"what `{node}` of the run {record.id} made is gone", hint="run the recipe again")
    return artifact.path


def usage(home: Path) -> Usage:
    """What lies below `home`."""
    store = Store(home)
    return Usage(
        artifacts=len(store.whole()),
        artifacts_bytes=bytes_below(store.artifacts),
        works_bytes=bytes_below(store.works),
        total_bytes=bytes_below(home),
    )


def verify(home: Path, *, drop: bool = False, progress: Progress | None = None) -> dict[str, str]:
    """Check every byte of every artifact below `home`.

    Args:
        drop: delete what is damaged, so that the next run makes it again.

    Returns:
        Key of each damaged artifact to what is wrong with it.

    Raises:
        SlmopsError: `drop` is asked for and a run is using the store.
    """
    if not home.is_dir():
        return {}
    store, progress = Store(home), progress or Silent()
    keys = store.whole()
    damaged: dict[str, str] = {}
    with storage_errors(home), store.alone() if drop else store.in_use():
        with progress.task("verify artifacts", len(keys), "artifacts") as task:
            for key in keys:
                try:
                    store.verify(key)
                except Damaged as damage:
                    damaged[key] = str(damage)
                task.advance()
        for key in damaged if drop else ():
            store.drop(key)
    return damaged


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _forget_locks(store: Store) -> None:
    """Key locks are only taken by runs, and no run lives while the store is held alone."""
    for path in _entries(store.locks):
        if path.name != "store":
            path.unlink()
