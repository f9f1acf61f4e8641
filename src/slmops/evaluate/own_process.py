"""Work on one model in a process of its own: its memory is given back, and no model warms another's caches."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from slmops import child
from slmops.errors import SlmopsError
from slmops.evaluate.limit import keep_below


def in_own_process(
    module: str,
    job: Mapping[str, Any],
    work: Path,
    failed: str,
    *,
    advance: Callable[[float], None] = lambda _: None,
    memory_mb: int | None = None,
) -> None:
    """Run `python -m MODULE JOB.json` to its end.

    Args:
        job: plain JSON.
        work: a folder for the job and for what the process writes to stderr.
        failed: begins the message of the error, e.g. `measuring X failed`.
        advance: told of each line `{"done": N}` that the process prints.
        memory_mb: see `keep_below`.

    Raises:
        DoesNotFit: it took more memory than it may.
        SlmopsError: the process failed; the last line it wrote is in the message.
    """
    place, errors = work / "job.json", work / "stderr.txt"
    place.write_text(json.dumps(job), encoding="utf-8")
    with errors.open("w", encoding="utf-8") as stderr:
        command = child.command(module, str(place))
        with (
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True) as process,  # noqa: S603
            keep_below(memory_mb, process),
        ):
            try:
                for line in process.stdout or ():
                    advance(json.loads(line)["done"] if line.startswith('{"done"') else 0)
            except BaseException:
                process.kill()
                raise
    if process.returncode:
        last = (errors.read_text(encoding="utf-8").strip().splitlines() or ["no message"])[-1]
        raise SlmopsError(f"{failed}: {last}")
