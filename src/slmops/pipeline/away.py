"""A stage's work on a machine of a Ray cluster that has the same files under the same paths."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from slmops.errors import BadInput, SlmopsError
from slmops.pipeline.artifact import Figure, plain
from slmops.pipeline.cluster import TRIES, join
from slmops.pipeline.executor import LocalExecutor
from slmops.pipeline.job import Job
from slmops.pipeline.locks import hold
from slmops.pipeline.messages import Receiver, Sender
from slmops.progress import Evaluated, Progress

_LOOK_SECONDS = 0.2
"""Between two looks at what the work has told."""

_BEGUN = "begun"
"""Told by each process that begins the work."""

_LOST = "warning: a machine or its process was lost; its work goes on elsewhere from what is kept"


def check_room(cpus: int, gpus: int) -> None:
    """Refuse work that would wait for ever.

    Raises:
        BadInput: no machine of the cluster is so large, or there is no cluster.
    """
    join()
    import ray

    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    each = [node["Resources"] for node in nodes if node["Alive"]]
    if not any(one.get("CPU", 0) >= cpus and one.get("GPU", 0) >= gpus for one in each):
        raise BadInput(
            f"no machine of the cluster has {cpus} cores and {gpus} GPUs, which the work asks for",
            hint="ask for less, or add a machine",
        )


@dataclass(frozen=True)
class AwayExecutor:
    """Runs a stage on a machine of the cluster; where that is lost, on another, from what the work folder has.

    Attributes:
        cpus: cores that it takes there.
        gpus: GPUs that it takes there.
        evaluated: see `Context.evaluated`; what it raises ends the work there.
    """

    cpus: int
    gpus: int
    evaluated: Evaluated | None = None

    def run(self, job: Job, progress: Progress, log: logging.Logger) -> Mapping[str, Figure]:  # noqa: ARG002
        """See `Executor`.

        Raises:
            BadInput: there is no cluster.
            SlmopsError: machines or processes were lost `TRIES` times.
        """
        join()
        import ray
        from ray.exceptions import RayError, RayTaskError

        mail = _mail()
        try:
            with self._begun(job, mail) as work, closing(Receiver(progress, self.evaluated)) as receiver:
                begun, done = 0, list[Any]()
                while not done:
                    done, _ = ray.wait([work], timeout=_LOOK_SECONDS)
                    for line in ray.get(mail.taken.remote()):
                        if line != _BEGUN:
                            receiver.take(line)
                            continue
                        begun += 1
                        if begun > 1:
                            receiver.close()
                            progress.note(_LOST)
                figures: Mapping[str, Figure] = json.loads(ray.get(work))
                return figures
        except RayTaskError as error:
            raise error.cause from error
        except RayError as error:
            raise SlmopsError(
                f"the cluster lost a piece of work {TRIES} times: {str(error).splitlines()[0]}",
                hint="what is done is kept: run the same command again",
            ) from error
        finally:
            ray.kill(mail)

    @contextmanager
    def _begun(self, job: Job, mail: Any) -> Iterator[Any]:
        """The work under way, which does not outlive the block."""
        import ray

        there = ray.remote(_work).options(num_cpus=self.cpus, num_gpus=self.gpus, max_retries=TRIES - 1)
        work = there.remote(json.dumps(asdict(job)), mail)
        try:
            yield work
        finally:
            ray.cancel(work, force=True)
            with _alone(job):
                pass  # until nobody writes there any more


def _mail() -> Any:
    """What takes the lines of the work, on this machine: it is not lost with another."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(_Mail).options(num_cpus=0, scheduling_strategy=here).remote()


class _Mail:
    """Lines in the order they came."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def tell(self, line: str) -> None:
        self._lines.append(line)

    def taken(self) -> list[str]:
        lines, self._lines = self._lines, []
        return lines


def _alone(job: Job) -> Any:
    """A lost machine may go on for a moment: whoever begins anew waits for it."""
    return hold(Path(job.work) / "away.lock", on_wait=lambda: None)


def _work(text: str, mail: Any) -> str:
    """Do the job here; the figures as JSON."""
    import ray

    def tell(line: str) -> None:
        ray.get(mail.tell.remote(line))

    job = Job(**json.loads(text))
    with _alone(job):
        tell(_BEGUN)
        # Of one that was lost; what is to last is in the work folder.
        shutil.rmtree(job.out)
        Path(job.out).mkdir()
        told = Sender(tell)
        figures = LocalExecutor(evaluated=told.evaluated).run(job, told, logging.getLogger("slmops"))
    return json.dumps({name: plain(figure) for name, figure in figures.items()})
