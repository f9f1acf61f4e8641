"""What benchmarks with two sides share: the model's folder, and the environment that a rival lives in."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RIVALS = Path(__file__).parent / "rivals"


def model_folder(home: Path, model: str) -> Path:
    """`model` (a folder or `wheel:NAME`) as a plain folder, written once below `home`."""
    from slmops.console import screen
    from slmops.evaluate.subjects import find_local

    return find_local(model, models=home / "models", progress=screen(quiet=True)).folder


def rival_python(title: str, lock: Path, home: Path, *, resolve: bool = True) -> Path | None:
    """The Python of a rival's environment, made once per lock; None, said aloud, where it cannot be installed.

    Args:
        resolve: false takes the lock's packages as they are, whatever others they ask for.
    """
    folder = home / "rivals" / f"{lock.stem}-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}"
    ready = folder / "ready"
    python = folder / "bin" / "python"
    if not ready.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(lock)]
        install += [] if resolve else ["--no-deps"]
        if subprocess.run(install, check=False).returncode:
            print(f"{title} is absent: it cannot be installed from its lock", file=sys.stderr)
            return None
        ready.touch()
    return python


def run_rival(title: str, python: Path, script: str, arguments: list[str], *, work: Path, threads: int) -> None:
    """Run a script of `rivals/` in the rival's environment, away from the Hub; what it prints is dropped.

    Args:
        work: a folder for its caches.

    Raises:
        SystemExit: it failed; with the end of what it said.
    """
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(work), "OMP_NUM_THREADS": str(threads)}
    environment |= {"TQDM_DISABLE": "1"}
    environment.pop("PYTHONPATH", None)
    told = [str(python), str(RIVALS / script), *arguments]
    done = subprocess.run(told, check=False, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    if done.returncode:
        sys.exit(f"{title} ended with {done.returncode}:\n{done.stderr.decode()[-2000:]}")


def write_job(work: Path, name: str, job: Mapping[str, Any]) -> None:
    """Say that a job begins, and leave it for a process whose arguments are the folder and its name."""
    print(f"{name} …", file=sys.stderr, flush=True)
    (work / f"{name}.json").write_text(json.dumps(job), encoding="utf-8")


def read_found(work: Path, name: str) -> dict[str, Any]:
    """What that process found."""
    found: dict[str, Any] = json.loads((work / f"{name}.found.json").read_text(encoding="utf-8"))
    return found
