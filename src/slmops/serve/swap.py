"""Another bundle in the place of the one that is served, without a request that fails."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable
from pathlib import Path

from slmops.bundle.manifest import read_manifest
from slmops.errors import BadInput
from slmops.serve.allocator import give_back
from slmops.serve.app import Server
from slmops.serve.journal import Journal
from slmops.serve.metrics import Metrics
from slmops.serve.served import Served

Load = Callable[[Path, Metrics | None], Served]
"""Loads the bundle in a folder and checks it; its figures are added to those that are given."""

_LOOKS_EVERY_S = 2.0


class Swap:
    """Looks after the folder of a bundle, which may be a link that is set to another."""

    def __init__(self, server: Server, folder: Path, load: Load, journal: Journal) -> None:
        self._server, self._folder, self._load, self._journal = server, folder, load, journal
        self._seen = _signature(folder)
        self.wanted = asyncio.Event()

    async def run(self) -> None:
        """Swap whenever it is wanted, one after the other: no more than two bundles are ever in memory."""
        while True:
            await self.wanted.wait()
            self.wanted.clear()
            self._seen = _signature(self._folder)
            await self._swap()

    async def watch(self) -> None:
        """Want it whenever the folder has become another."""
        while True:
            await asyncio.sleep(_LOOKS_EVERY_S)
            found = await asyncio.to_thread(_signature, self._folder)
            # While a bundle takes another's place there may be none for a moment.
            if found and found != self._seen:
                self.wanted.set()

    async def _swap(self) -> None:
        old = self._server.served
        try:
            new = await asyncio.to_thread(self._changed, old)
        except BadInput as error:
            self._journal.write("bundle_refused", why=str(error), served=old.bundle.manifest.version)
            return
        except Exception as error:
            logging.getLogger(__name__).exception("the bundle in %s cannot be loaded", self._folder)
            self._journal.write("bundle_refused", why=type(error).__name__, served=old.bundle.manifest.version)
            return
        if new is None:
            self._journal.write("bundle_unchanged", version=old.bundle.manifest.version)
            return
        self._server.intake.change(new)
        self._journal.write("bundle_changed", old=old.bundle.manifest.version, new=new.bundle.manifest.version)
        # A request may have looked up its model and not yet queued what it wants of it.
        await self._server.accounts.until_over()
        await asyncio.to_thread(old.scheduler.close, 0.0)
        del old, new
        # A model and what was compiled for it refer to each other.
        gc.collect()
        give_back()

    def _changed(self, old: Served) -> Served | None:
        """The bundle that is there now, loaded beside `old`; None where it is the same.

        Raises:
            BadInput: it cannot take the other's place.
        """
        folder = self._folder.resolve()
        manifest = read_manifest(folder, verify=False)
        if manifest == old.bundle.manifest:
            return None
        if manifest.name != old.name:
            raise BadInput(f"{folder} is {manifest.name}, and clients ask for {old.name}")
        return self._load(folder, old.metrics)


def _signature(folder: Path) -> list[tuple[str, int, int, int]]:
    """What changes when the bundle in `folder` does; empty where there is none."""
    root, found = folder.resolve(), []
    try:
        for path in sorted(root.rglob("*")):
            seen = path.lstat()
            found.append((str(path), seen.st_ino, seen.st_size, seen.st_mtime_ns))
    except OSError:
        return []
    return found
