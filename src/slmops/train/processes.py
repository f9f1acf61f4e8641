"""Several processes that train one model: who takes which batch, and what they have to agree on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist

from slmops.models.device import fastest_device
from slmops.recipe.training import Together


def how_many(asked: Together, accumulate: int) -> int:
    """Processes that are to train together on this machine."""
    return max(1, min(torch.cuda.device_count(), accumulate)) if asked.processes == "auto" else asked.processes


@dataclass(frozen=True)
class Processes:
    """This process among those that a launcher started, `slmops.pipeline.together` or `torchrun`; alone by default.

    Gradients are added up by us and not by DistributedDataParallel: that averages over processes, and the loss is a
    mean over all answer tokens of a step, of which each process has another number.
    """

    rank: int = 0
    count: int = 1

    @classmethod
    def joined(cls) -> Processes:
        """Join the group that the launcher's environment describes: NCCL on GPUs, gloo on processors."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        from accelerate import PartialState

        PartialState(cpu=not torch.cuda.is_available())
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def first(self) -> bool:
        """Whether this process is the one that tells people and writes files."""
        return self.rank == 0

    def share(self, step: int) -> int:
        """Batches that a process takes of a step of so many."""
        return -(-step // self.count)

    def part(self, batches: int, step: int) -> list[int | None]:
        """The numbers of the batches that this process takes: of each step every `count`-th, from the `rank`-th on.

        None, at the end of a step, where the others have a batch more.

        Args:
            batches: how many there are in all.
            step: how many of them make an optimiser step.
        """
        mine = list[int | None]()
        for start in range(0, batches, step):
            end = min(start + step, batches)
            taken = range(start + self.rank, end, self.count)
            mine += [*taken, *[None] * (self.share(end - start) - len(taken))]
        return mine

    def add_up(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace each tensor by its sum over all processes."""
        if self.count > 1:
            for tensor in tensors:
                dist.all_reduce(tensor)

    def total(self, values: Sequence[float]) -> list[float]:
        """The sum of each value over all processes, the same on each of them."""
        if self.count == 1:
            return list(values)
        numbers = torch.tensor(values, dtype=torch.float64, device=fastest_device())
        dist.all_reduce(numbers)
        return [float(number) for number in numbers]

    def first_says(self, answer: bool) -> bool:
        """The first process's answer: clocks differ, and all must do the same."""
        return self.total([float(answer and self.first)])[0] > 0

    def wait(self) -> None:
        """Go on when all have come here."""
        if self.count > 1:
            dist.barrier()
