"""Which runtime serves a bundle: the one it was measured with, one that is named, or the fastest on this machine.

Some runtimes run the same file. Which is the fastest depends on the processor and on how many are served at a time, so
it is measured here, on the bundle itself, and kept for the next start.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

from slmops.bundle.manifest import MODEL
from slmops.bundle.predict import Bundle
from slmops.engines import SAME_FILE, Running, check_installed, load_running
from slmops.engines.tagging_running import TaggingRunning
from slmops.errors import BadInput
from slmops.pipeline.environment import cpu_model

AUTO = "auto"

_READ, _WRITTEN = 64, 32
"""Tokens of each prompt and each answer that are timed."""


def choose(bundle: Bundle, asked: str | None, *, streams: int) -> str:
    """The name of the runtime that serves `bundle`.

    Args:
        asked: a key of `RUNNING`; `auto` for the fastest of those that are installed; None for the bundle's own.
        streams: requests at a time that `auto` is to be fastest with.

    Raises:
        BadInput: the runtime that is asked for does not run the bundle's file, or is not installed.
    """
    own = bundle.manifest.engine
    # Of those that run the same file, this one alone fills its slots.
    able = [own] if bundle.manifest.adapters else [own, *SAME_FILE.get(own, ())]
    if asked == AUTO:
        installed = [name for name in able if _is_installed(name)]
        return _fastest(bundle, installed, streams) if len(installed) > 1 else own
    if asked not in (None, *able):
        raise BadInput(
            f"{asked} cannot run what the bundle {bundle.manifest.name} holds, a model for {own}",
            hint=f"give --engine {' or '.join([AUTO, *able])}, or ship the model for it (compress.runtime)",
        )
    name = asked or own
    check_installed(name, serving=True)
    return name


def tokens_per_s(running: Running, streams: int) -> float:
    """Tokens that are written a second by so many requests that come together, the reading of their prompts included.

    Drawn tokens are read, none of them twice, and the likeliest are written. The first of two tries is left out. A
    model that marks writes nothing: it is tokens that are read then.
    """
    draw, marks = np.random.default_rng(0), isinstance(running, TaggingRunning)
    seconds = 0.0
    for _ in range(2):
        begun = time.perf_counter()
        steps: dict[int, Sequence[int]] = {}
        for slot in range(streams):
            prompt = draw.integers(0, running.vocabulary, min(_READ, running.room // 2)).tolist()
            steps[slot] = prompt[running.begin(slot, prompt) :]
        tokens = len(prompt) if marks else min(_WRITTEN, running.room // 2)
        for _ in range(1 if marks else tokens):
            steps = {slot: [int(logits[-1].argmax())] for slot, logits in running.run(steps).items()}
        seconds = time.perf_counter() - begun
    return streams * tokens / seconds


def _fastest(bundle: Bundle, names: Sequence[str], streams: int) -> str:
    """By what was measured before, or is now."""
    known, speeds = _known(), dict[str, float]()
    for name in names:
        key = _key(bundle, name, streams)
        if key not in known:
            running = load_running(name, bundle.folder / MODEL, slots=streams, threads=bundle.threads)
            known[key] = round(tokens_per_s(running, streams), 1)
            del running
            _keep(known)
        speeds[name] = known[key]
    return max(speeds, key=lambda name: speeds[name])


def _key(bundle: Bundle, name: str, streams: int) -> str:
    """All that a speed depends on, but for who else uses the machine."""
    weights = sorted(
        record.sha256[:16] for file, record in bundle.manifest.files.items() if file.startswith(f"{MODEL}/model.")
    )
    threads = bundle.threads or len(os.sched_getaffinity(0))
    parts = (*weights, name, version(name), cpu_model(), f"{threads} threads", f"{streams} streams")
    return ", ".join(parts)


def _kept() -> Path:
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "slmops" / "tokens_per_s.json"


def _known() -> dict[str, float]:
    """What was measured; nothing where the file is not one of ours, for it can be measured again."""
    try:
        found = json.loads(_kept().read_text(encoding="utf-8"))
        return {str(key): float(value) for key, value in found.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def _keep(known: Mapping[str, float]) -> None:
    path = _kept()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        fresh.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        fresh.replace(path)
    except OSError as error:
        # A server without a disk of its own measures at every start.
        logging.getLogger(__name__).warning("cannot keep what was measured: %s", error.strerror)


def _is_installed(name: str) -> bool:
    try:
        check_installed(name, serving=True)
    except BadInput:
        return False
    return True
