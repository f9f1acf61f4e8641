"""The project as a stranger meets it: a fresh clone in an empty home, the README's two commands, timed."""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from _contract import publish

ROOT = Path(__file__).parents[1]
PARTS = ("demo", "tests")
GOALS = {"setup_s": 180.0, "demo_first_s": 900.0, "demo_second_s": 10.0, "help_s": 0.3, "tests_s": 1500.0}
HELP_RUNS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--skip", action="append", choices=PARTS, default=[], help="leave a part out; repeatable")
    parser.add_argument("--room", type=Path, help="folder for the clone, which stays there; else a temporary one")
    parser.add_argument("--quick", action="store_true", help="set-up and help alone")
    arguments = parser.parse_args()
    skipped = {*PARTS} if arguments.quick else {*arguments.skip}
    with TemporaryDirectory(prefix="slmops-setup-") as temporary:
        figures, helps = measure(arguments.room or Path(temporary), skipped)
    goals = {name: goal for name, goal in GOALS.items() if name.partition("_")[0] not in skipped}
    publish("setup", figures, goals=goals, spread={"help_s": [min(helps), max(helps)]}, keep=not skipped)


def measure(room: Path, skipped: set[str]) -> tuple[dict[str, float], list[float]]:
    """Seconds of each part, and of every single call of help. Only what is committed gets into the clone."""
    clone, home = room.resolve() / "clone", room.resolve() / "home"
    home.mkdir(parents=True)
    timed(["git", "clone", "--quiet", str(ROOT), str(clone)], room, home)
    figures = {"setup_s": timed(["make", "setup"], clone, home)}
    if "demo" not in skipped:
        figures["demo_first_s"] = timed(["make", "demo"], clone, home)
        figures["demo_second_s"] = timed(["make", "demo"], clone, home)
    helps = [timed([".venv/bin/slmops", "--help"], clone, home) for _ in range(HELP_RUNS)]
    figures["help_s"] = statistics.median(helps)
    if "tests" not in skipped:
        figures["tests_s"] = timed(["make", "test"], clone, home)
    return figures, helps


def timed(command: list[str], folder: Path, home: Path) -> float:
    """Seconds that a command takes in `folder`, in an environment that knows nothing of this one."""
    environment = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    print(f"{' '.join(command)} …", file=sys.stderr, flush=True)
    began = time.perf_counter()
    done = subprocess.run(
        command, cwd=folder, env={**environment, "HOME": str(home)}, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - began
    # A gate that does not pass is a result: the run is whole, and says so.
    if done.returncode and "\nverdict: " not in done.stdout:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-4000:]}")
    return seconds


if __name__ == "__main__":
    main()
