"""Olive as a child process: what it says on the way, and whether it made what it was to make."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from slmops import child
from slmops.errors import SlmopsError
from slmops.olive.configuration import CHECKPOINTS, OUTPUT
from slmops.olive.environment import olive_python

_STATE = "trainer_state.json"
"""Written into a checkpoint last."""

_SETTINGS = {
    "OLIVE_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TQDM_DISABLE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def run_olive(
    configuration: Mapping[str, Any], work: Path, *, told: Callable[[str], None], event: Callable[[str, float], None]
) -> int:
    """Run a configuration in the folder `work`, from the last whole checkpoint there.

    Args:
        told: every line that Olive writes.
        event: `begins` as the trainer below it does; `loss` for every `log_every` steps, with their mean in nats per
            answer token; `seconds` with what the training took, when it is done.

    Returns:
        Bytes of main memory that the process took at its peak, libraries included.

    Raises:
        SlmopsError: Olive failed, or ended without an output; what it said last is in the message.
    """
    _drop_unfinished(work / CHECKPOINTS)
    shutil.rmtree(work / OUTPUT, ignore_errors=True)
    (work / "olive.json").write_text(json.dumps(configuration, indent=2) + "\n", encoding="utf-8")
    command = child.command("olive", "run", "--config", "olive.json", "--disable_telemetry", python=olive_python())
    # What is read from files is kept by `datasets` as well: here, where it goes with the work.
    environment = os.environ | _SETTINGS | {"HF_DATASETS_CACHE": str(work / "datasets")}
    last, peak = deque[str](maxlen=200), 0
    with subprocess.Popen(  # noqa: S603 - our own arguments
        command, cwd=work, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            for line in process.stdout or ():
                last.append(line.rstrip())
                told(last[-1])
                peak = max(peak, _peak_bytes(process.pid))
                if happened := _event(line):
                    event(*happened)
        except BaseException:
            process.kill()
            raise
    # Olive ends with 0 even where its pass failed.
    if process.returncode or not (work / OUTPUT / "model_config.json").is_file():
        raise SlmopsError(f"Olive made no model: {_reason(last)}", hint="the log of the run has all that it said")
    return peak


def step_begun(work: Path) -> int:
    """The step that a run in `work` goes on from: that of the last whole checkpoint; 0 without one."""
    steps = (int(folder.name.partition("-")[2]) for folder in _checkpoints(work / CHECKPOINTS) if _is_whole(folder))
    return max(steps, default=0)


def _checkpoints(folder: Path) -> list[Path]:
    return list(folder.glob("checkpoint-*"))


def _is_whole(checkpoint: Path) -> bool:
    try:
        return isinstance(json.loads((checkpoint / _STATE).read_text(encoding="utf-8")), dict)
    except (OSError, ValueError):
        return False


def _drop_unfinished(checkpoints: Path) -> None:
    """What a kill cut off would be gone on from; and a folder without a whole one is refused by Olive."""
    for folder in _checkpoints(checkpoints):
        if not _is_whole(folder):
            shutil.rmtree(folder)
    if not _checkpoints(checkpoints):
        shutil.rmtree(checkpoints, ignore_errors=True)


def _event(line: str) -> tuple[str, float] | None:
    """What a line of the output says of the training; the trainer prints figures as `{'loss': '2.942', …}`."""
    if "Running fine-tuning" in line:
        return "begins", 0.0
    for name, event in (("loss", "loss"), ("train_runtime", "seconds")):
        if found := re.match(rf"\{{'{name}': '([^']+)'", line):
            with suppress(ValueError):
                return event, float(found[1])
    return None


def _peak_bytes(process_id: int) -> int:
    """The most main memory that a living process has had (Linux, proc(5)); 0 of one that has ended."""
    try:
        told = Path(f"/proc/{process_id}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    found = re.search(r"^VmHWM:\s*(\d+) kB$", told, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _reason(lines: Iterable[str]) -> str:
    """The last line that names an error, else the last one."""
    said = [line.strip() for line in lines if line.strip()]
    errors = [line for line in said if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return (errors or said or ["it said nothing"])[-1][:500]
