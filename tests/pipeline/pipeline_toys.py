"""Stages that take milliseconds, leave traces of how often they ran, and can be stopped in the middle."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from slmops.pipeline.run import RunResult, run_graph
from slmops.pipeline.stage import Context, Node


class ToySettings(BaseModel):
    text: str
    calls: Path
    """A file outside the home: a line for each time the stage ran."""
    pause: float = 0.0
    """Seconds that it takes."""
    size: int = 10
    error: str | None = None


class Toy:
    """Writes its text after that of its inputs."""

    name = "toy"
    version = 1
    libraries = ("pydantic",)

    def run(self, inputs: Mapping[str, Path], settings: ToySettings, context: Context) -> Mapping[str, float | str]:
        checkpoint = context.work / "checkpoint"
        state = "resumed" if checkpoint.exists() else "fresh"
        checkpoint.write_text("half way")
        with settings.calls.open("a") as calls:
            calls.write(f"{settings.text} {state}\n")
        with context.progress.task(f"toy {settings.text}", 10, "steps") as task:
            for _ in range(10):
                time.sleep(settings.pause / 10)
                task.advance()
        if settings.error:
            raise ValueError(settings.error)
        before = "".join(
            (path / "text.txt" if path.is_dir() else path).read_text() for _, path in sorted(inputs.items())
        )
        (context.out / "text.txt").write_text(before + settings.text)
        (context.out / "deep").mkdir()
        (context.out / "deep" / "bytes.bin").write_bytes(b"x" * settings.size)
        return {"length": len(before + settings.text)}


def chain(calls: Path, *, last: str = "c", **settings: Any) -> list[Node]:
    """a → b → c, and a → c."""

    def toy(text: str) -> ToySettings:
        return ToySettings(text=text, calls=calls, **settings)

    return [
        Node("a", Toy, toy("a")),
        Node("b", Toy, toy("b"), inputs={"first": "a"}),
        Node("c", Toy, toy(last), inputs={"first": "a", "second": "b"}),
    ]


def run_chain(home: Path, nodes: list[Node], **options: Any) -> RunResult:
    return run_graph(nodes, name="toy", resolved_recipe={"name": "toy"}, seed=7, home=home, **options)


def calls_in(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


PROCESSES = multiprocessing.get_context("forkserver")
"""Starts processes in milliseconds: what takes long to import, pytest included, is there already."""
PROCESSES.set_forkserver_preload(["pytest", "slmops.pipeline.run"])
