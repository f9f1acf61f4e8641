"""A stage's work done by several processes of this machine that find each other, and end together."""

from __future__ import annotations

import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from slmops import child
from slmops.errors import SlmopsError
from slmops.pipeline.artifact import Figure, plain
from slmops.pipeline.job import Job
from slmops.pipeline.messages import Receiver, Sender
from slmops.pipeline.stage import Helped
from slmops.progress import Evaluated, Progress, Silent

_HERE = "127.0.0.1"


@dataclass(frozen=True)
class _One:
    """One of the processes; what it says is in `log`."""

    process: subprocess.Popen[bytes]
    log: Path


def do_together(
    job: Job, count: int, progress: Progress, *, evaluated: Evaluated | None = None
) -> Mapping[str, Figure]:
    """Do `job` in `count` processes, each of which finds the others as `torchrun` would have it.

    Where one ends, all end; what they kept in the work folder is there for the next time.

    Args:
        evaluated: see `Context.evaluated`; of the first process.

    Raises:
        SlmopsError: a process was killed, or ended by a bug that its log tells.
        Exception: what the stage raised, and what `evaluated` did.
    """
    lines: queue.Queue[tuple[_One, str]] = queue.Queue()
    with _started(job, count, lines) as every, closing(Receiver(progress, evaluated)) as receiver:
        running = count
        while running:
            one, line = lines.get()
            if line:
                receiver.take(line)
            elif one.process.wait():
                raise _why(every, lines, receiver)
            else:
                running -= 1
        if receiver.figures is None:
            raise SlmopsError(f"no process of {count} wrote what they made", hint=f"they say why in {every[0].log}")
        return receiver.figures


@contextmanager
def _started(job: Job, count: int, lines: queue.Queue[tuple[_One, str]]) -> Iterator[list[_One]]:
    """The processes, whose lines come into `lines`, an empty one at the end of each; none outlives the block."""
    import torch

    folder = Path(job.work) / "together"
    folder.mkdir(exist_ok=True)
    (folder / "job.json").write_text(json.dumps(asdict(job)), encoding="utf-8")
    # Held here, the meeting point has a port that nobody else can take before the first process is there.
    meeting = torch.distributed.TCPStore(  # type: ignore[attr-defined]
        _HERE, 0, is_master=True, wait_for_workers=False
    )
    common = {
        "MASTER_ADDR": _HERE,
        "MASTER_PORT": str(meeting.port),
        "TORCHELASTIC_USE_AGENT_STORE": str(True),
        "OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // count)),
        **dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(count)),
    }
    every: list[_One] = []
    try:
        for rank in range(count):
            environment = {**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            every.append(_start(folder, rank, environment, lines))
        yield every
    finally:
        _end(every)


def _start(folder: Path, rank: int, environment: Mapping[str, str], lines: queue.Queue[tuple[_One, str]]) -> _One:
    # A pipe of its own: libraries write to a process's output too.
    reading, writing = os.pipe()
    path = folder / f"process-{rank + 1}.log"
    with path.open("wb") as log:
        command = child.command("slmops.pipeline.together", str(folder / "job.json"), str(writing))
        process = subprocess.Popen(  # noqa: S603
            command, env=environment, pass_fds=[writing], stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
    os.close(writing)
    one = _One(process, path)

    def read() -> None:
        with os.fdopen(reading, encoding="utf-8") as pipe:
            for line in pipe:
                lines.put((one, line))
        lines.put((one, ""))

    threading.Thread(target=read, daemon=True).start()
    return one


def _end(every: Sequence[_One]) -> None:
    for one in every:
        one.process.kill()
    for one in every:
        one.process.wait()


def _why(every: Sequence[_One], lines: queue.Queue[tuple[_One, str]], receiver: Receiver) -> SlmopsError:
    """Why they ended: by what one of them says, else by the one that was killed, else by the first that stopped.

    The others stop because they miss it, and what they say of that is not the reason.
    """
    codes = [one.process.poll() for one in every]
    _end(every)
    try:
        while True:
            _, line = lines.get(timeout=1)
            if line:
                receiver.take(line)
    except SlmopsError as error:
        return error
    except queue.Empty:
        pass
    count = len(every)
    if killed := [(number, code) for number, code in enumerate(codes, 1) if code and code < 0]:
        number, code = killed[0]
        return SlmopsError(
            f"process {number} of {count} that worked together was killed ({signal.Signals(-code).name})",
            hint="the same command goes on from what was kept last; where memory ran out, with fewer processes",
        )
    number = next(number for number, code in enumerate(codes, 1) if code)
    return SlmopsError(
        f"process {number} of {count} that worked together stopped unexpectedly", hint=f"see {every[number - 1].log}"
    )


def _work(job: Job, descriptor: int) -> int:
    """Be one of the processes; the exit code."""
    first = os.environ["RANK"] == "0"
    with os.fdopen(descriptor, "w", buffering=1, encoding="utf-8") as pipe:
        told = Sender(lambda line: pipe.write(line + "\n"))
        progress: Progress = told if first else Silent()
        try:
            figures = job.do(progress, logging.getLogger("slmops"), evaluated=told.evaluated if first else None)
            told.tell("done", {name: plain(figure) for name, figure in figures.items()})
        except Helped:
            pass
        except SlmopsError as error:
            told.failed(error)
            return error.exit_code
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    sys.exit(_work(Job(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))), int(sys.argv[2])))
