"""A content-addressed store of artifacts that a kill at any moment cannot corrupt.

<home>/store/<key>/manifest.json   provenance, figures, digest and size of every file
<home>/store/<key>/files/          what the stage wrote; read-only
<home>/work/<key>/                 checkpoints of a stage that has not finished
<home>/tmp/<key>/                  an artifact that is being written, or deleted
<home>/kept/                       what was paid for and must not be bought again: see `Context.kept`
<home>/locks/                      one lock per key, and one for the store as a whole
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from slmops.errors import SlmopsError
from slmops.pipeline.artifact import Artifact, Figure, FileRecord, Manifest, plain
from slmops.pipeline.files import files_below, sha256, sync
from slmops.pipeline.keys import Provenance
from slmops.pipeline.locks import Held, hold

_KEY = re.compile(r"[0-9a-f]{64}")
_MANIFEST = "manifest.json"


class Damaged(SlmopsError):
    """An artifact is not what its manifest says."""


@dataclass(frozen=True)
class Draft:
    """Room for an artifact that is being made: see `Context.out` and `Context.work`."""

    key: str
    out: Path
    work: Path


class Store:
    """The artifacts below `<home>/store`. Operations on one key need its lock, except reading.

    Raises:
        OSError: from every method, when the disk is full or cannot be written; nothing that counts is left behind.
    """

    def __init__(self, home: Path) -> None:
        self.home = home.absolute()
        self.artifacts, self.works, self.drafts, self.kept, self.locks = (
            self.home / name for name in ("store", "work", "tmp", "kept", "locks")
        )

    def whole(self) -> list[str]:
        """Keys of the whole artifacts."""
        return sorted(path.parent.name for path in self.artifacts.glob(f"*/{_MANIFEST}") if is_key(path.parent.name))

    def has(self, key: str) -> bool:
        return (self.artifacts / key / _MANIFEST).is_file()

    def open(self, key: str) -> Artifact | None:
        """The artifact, or None when it does not exist. Sizes are checked, digests are not: see `verify`.

        Raises:
            Damaged: files are missing, or their size is not the recorded one.
        """
        if not self.has(key):
            return None
        folder = self.artifacts / key
        try:
            manifest = Manifest.model_validate_json((folder / _MANIFEST).read_bytes())
        except ValidationError as error:
            raise Damaged(f"{folder / _MANIFEST} is not a manifest: {error.errors()[0]['msg']}") from error
        for name, record in manifest.files.items():
            path = folder / "files" / name
            if not path.is_file():
                raise Damaged(f"{path} is missing")
            if path.stat().st_size != record.size:
                raise Damaged(f"{path} has {path.stat().st_size} bytes, not {record.size}")
        return Artifact(key, folder / "files", manifest)

    def find(self, key: str) -> Artifact | None:
        """The artifact if it exists and is not visibly damaged."""
        try:
            return self.open(key)
        except Damaged:
            return None

    def verify(self, key: str) -> None:
        """Check every byte of an artifact, and that its provenance leads to its key.

        Raises:
            Damaged: something differs, or there is no such artifact.
        """
        artifact = self.open(key)
        if artifact is None:
            raise Damaged(f"there is no artifact {key}")
        if key != artifact.manifest.key or key != artifact.manifest.provenance.key():
            raise Damaged(f"{self.artifacts / key / _MANIFEST} belongs to another key")
        if extra := set(files_below(artifact.path)) - artifact.manifest.files.keys():
            raise Damaged(f"{artifact.path / min(extra)} was added later")
        for name, record in artifact.manifest.files.items():
            if sha256(artifact.path / name) != record.sha256:
                raise Damaged(f"{artifact.path / name} does not have the recorded digest")

    def begin(self, key: str) -> Draft:
        """An empty folder to write into, and the work folder as an earlier, killed attempt left it."""
        draft = Draft(key, self.drafts / key / "files", self.works / key)
        self._delete(self.drafts / key)
        self.artifacts.mkdir(parents=True, exist_ok=True)
        draft.out.mkdir(parents=True)
        draft.work.mkdir(parents=True, exist_ok=True)
        return draft

    def commit(self, draft: Draft, provenance: Provenance, metrics: Mapping[str, Figure], seconds: float) -> Artifact:
        """Turn a draft into an artifact, in one step that either happened or did not; then drop its work folder.

        An artifact that already has this key is kept: same key, same artifact.

        Raises:
            SlmopsError: the stage left something that is not a plain file.
        """
        folder = draft.out.parent
        manifest = Manifest(
            key=draft.key,
            provenance=provenance,
            files={name: _seal(draft.out / name) for name in files_below(draft.out)},
            metrics={name: plain(value) for name, value in metrics.items()},
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=round(seconds, 3),
        )
        for parent, _, _ in os.walk(draft.out):
            sync(Path(parent))
        # Written last: whoever sees the manifest may trust that every file before it is on the disk.
        (folder / _MANIFEST).write_text(json.dumps(manifest.model_dump(mode="json"), indent=1), encoding="utf-8")
        sync(folder / _MANIFEST)
        sync(folder)
        self._install(folder, draft.key)
        self._delete(draft.work)
        return Artifact(draft.key, self.artifacts / draft.key / "files", manifest)

    def _install(self, folder: Path, key: str) -> None:
        target = self.artifacts / key
        if target.exists() and not self.has(key):
            self.drop(key)
        try:
            folder.rename(target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or not self.has(key):
                raise
            self._delete(folder)
        sync(self.artifacts)

    def discard(self, draft: Draft) -> None:
        """Give back the room of a draft that will not become an artifact; its work folder stays."""
        self._delete(draft.out.parent)

    def give_up(self, key: str) -> None:
        """Delete the work folder of an artifact that nobody is to finish."""
        with self.lock(key, lambda: None):
            self._delete(self.works / key)

    def drop(self, key: str) -> None:
        """Delete an artifact. It is renamed away first, so a half-deleted one never counts as whole."""
        self.drafts.mkdir(exist_ok=True)
        away = self.drafts / f"{key}.dropped"
        self._delete(away)
        (self.artifacts / key).rename(away)
        self._delete(away)

    def tidy(self) -> None:
        """Remove what killed runs left behind and no later run can use. Needs `in_use` or `alone`."""
        finished = [path for path in _entries(self.works) if self.has(path.name)]
        for path in [*_entries(self.drafts), *finished]:
            # A free lock means that nobody is writing there: its owner is dead.
            try:
                with self.lock(path.name.partition(".")[0]):
                    self._delete(path)
            except Held:
                continue

    @staticmethod
    def _delete(folder: Path) -> None:
        if folder.exists():
            shutil.rmtree(folder)

    def lock(self, key: str, on_wait: Callable[[], None] | None = None) -> AbstractContextManager[None]:
        """Keep other processes from making `key`; see `hold`."""
        self.locks.mkdir(parents=True, exist_ok=True)
        return hold(self.locks / key, on_wait=on_wait)

    def in_use(self, on_wait: Callable[[], None] = lambda: None) -> AbstractContextManager[None]:
        """Held, shared, by every run for as long as it lives. Deleting what is whole needs `alone`, which excludes it.

        So an artifact that a run has found cannot vanish under it, and neither side needs a list of who uses what.
        """
        self.locks.mkdir(parents=True, exist_ok=True)
        return hold(self.locks / "store", shared=True, on_wait=on_wait)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Held by whoever deletes.

        Raises:
            SlmopsError: a run is using the store.
        """
        self.locks.mkdir(parents=True, exist_ok=True)
        try:
            with hold(self.locks / "store"):
                yield
        except Held as error:
            raise SlmopsError(f"a run is using {self.home}", hint="try again when it has ended") from error


def is_key(name: str) -> bool:
    return _KEY.fullmatch(name) is not None


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _seal(path: Path) -> FileRecord:
    """Record a finished file and write-protect it: later stages may hard-link it (see `link_or_copy`)."""
    if path.is_symlink() or not path.is_file():
        raise SlmopsError(
            f"a stage left {path.name}, which is not a plain file", hint="link_or_copy puts files in place"
        )
    path.chmod(path.stat().st_mode & ~0o222)
    sync(path)
    return FileRecord(sha256=sha256(path), size=path.stat().st_size)
