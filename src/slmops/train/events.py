"""The figures of a training as event files for TensorBoard."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from slmops.errors import BadInput

FOLDER = "tensorboard"

Record = Callable[[int, Mapping[str, float]], None]
"""Takes a step and its figures by name."""


def check_tensorboard() -> None:
    """Refuse where event files cannot be written.

    Raises:
        BadInput: the package tensorboard is not installed.
    """
    if find_spec("tensorboard") is None:
        raise BadInput(
            "`tensorboard: true` needs the package tensorboard, which is not installed",
            hint="pip install 'slmops[tensorboard]'",
        )


@contextmanager
def event_files(folder: Path, *, resumed_at: int) -> Iterator[Record]:
    """Write event files to `folder`; what an interrupted training wrote behind step `resumed_at` no longer counts.

    Raises:
        BadInput: see `check_tensorboard`.
    """
    check_tensorboard()
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder), purge_step=resumed_at + 1) as writer:

        def record(step: int, figures: Mapping[str, float]) -> None:
            for name, value in figures.items():
                writer.add_scalar(name, value, step)

        yield record
