"""A model made ready to be trained, in a precision, in pieces and with activations that the memory has room for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from transformers import AutoConfig

from slmops.models.adapters.attach import attach as put_adapter
from slmops.models.adapters.fused import fuse_updates
from slmops.models.device import fastest_device
from slmops.models.fused_norms import fuse_norms, fuses
from slmops.models.tag_head import TagHead, attach
from slmops.progress import Progress
from slmops.recipe.compress import CompressSettings
from slmops.recipe.training import Fsdp, Optimisation, Rounding
from slmops.recipe.tuning import LOW_RANK, Adapter
from slmops.train.adapted import load_base
from slmops.train.checkpoint import kept_state
from slmops.train.examples import Example
from slmops.train.forecast import lighter, seconds_of
from slmops.train.grids import grids_of
from slmops.train.memory import Memory, available_bytes, needed, parameters_of
from slmops.train.objectives.imitate import Imitation
from slmops.train.on_policy import Writer
from slmops.train.optimiser import Round
from slmops.train.precision import Precision, precisions
from slmops.train.processes import Processes
from slmops.train.remedy import remedy
from slmops.train.settle import Need, check_fits, settled
from slmops.train.trunk import freeze


@dataclass(frozen=True)
class Wanted:
    """What is to be trained, and how.

    Attributes:
        settings: what of them is left open is decided by the memory.
        imitate: makes the objective for a model.
    """

    folder: Path
    settings: Optimisation
    seed: int
    imitate: Callable[[transformers.PreTrainedModel], Imitation]
    rounding: Rounding | CompressSettings | None = None
    head: TagHead | None = None
    adapter: Adapter | None = None
    fsdp: Fsdp | None = None

    @property
    def replaces(self) -> list[tuple[str, bool]]:
        """What may take the place of weights, which an adapter does not go with, and whether it is wanted."""
        return [("rounding", self.rounding is not None), ("a head that labels", self.head is not None)]


@dataclass(frozen=True)
class Reading:
    """What a training reads.

    Attributes:
        batches: of all steps and processes, as numbers of examples.
        examples: to train on, and behind them those to evaluate with.
        writer: has the student answer some batches itself.
    """

    batches: Sequence[Sequence[int]]
    examples: Sequence[Example]
    writer: Writer | None = None

    @property
    def rows(self) -> int:
        """Of the largest batch."""
        return max(map(len, self.batches))


@dataclass
class Made:
    """A model ready to be trained.

    Attributes:
        available: bytes that there were before it was loaded.
        found: of its settings nothing is left open any more.
    """

    wanted: Wanted
    reading: Reading
    precision: Precision
    parts: int
    model: transformers.PreTrainedModel
    grids: dict[torch.Tensor, Round]
    imitation: Imitation
    available: int

    def __post_init__(self) -> None:
        self.found = settled(self.wanted.settings, self.need, self.available, can=self.can, rows=self.reading.rows)

    @property
    def from_below(self) -> bool:
        """What the still layers make of answers that do not exist yet cannot be kept: they run in every pass."""
        return self.reading.writer is not None or self.imitation.reads_still_layers

    @property
    def alone(self) -> bool:
        """Whether each row goes through the model by itself; see `shares`."""
        return self.wanted.fsdp is not None or self.imitation.looks_inside

    @property
    def can(self) -> bool:
        """Whether the model can compute its activations again."""
        return bool(self.model.supports_gradient_checkpointing)

    def need(self, settings: Optimisation, pieces: int) -> Memory:
        return needed(
            self.model,
            self.reading.batches,
            self.reading.examples,
            settings,
            on_grid=self.grids,
            pieces=pieces,
            parts=self.parts,
            writer=self.reading.writer,
            whole=self.from_below,
            alone=self.alone,
            teacher_bytes=self.imitation.teacher_bytes,
            adapter=self.wanted.adapter,
        )

    def remedy(self) -> str:
        """What to change where it does not fit; what an adapter does not go with leaves the method as it is."""
        wanted, batches, examples = self.wanted, self.reading.batches, self.reading.examples
        config = AutoConfig.from_pretrained(wanted.folder, local_files_only=True, trust_remote_code=False)
        method_stays = any(taken for _, taken in wanted.replaces) or wanted.fsdp or self.imitation.teacher_bytes
        methods: Mapping[str, Need] = {}
        if not method_stays:
            methods = lighter(config, wanted.settings, wanted.adapter, self.precision.dtype, batches, examples)
        return remedy(wanted.settings, self.found, self.need, methods, examples, can=self.can, rows=self.reading.rows)

    def held(self) -> int:
        """Bytes of what is in memory before the optimiser is made."""
        memory = self.found.memory
        return memory.weights + memory.states + memory.teacher

    def figures(self, processes: Processes) -> dict[str, float | str]:
        """What moves, what the training is expected to take, and what was left open and is decided."""
        asked, settings, reading = self.wanted.settings, self.found.settings, self.reading
        seconds = seconds_of(
            self.model,
            reading.batches,
            reading.examples,
            settings,
            self.precision.name,
            whole=self.from_below,
            alone=self.alone,
        )
        figures: dict[str, float | str] = {
            **sizes_of(self.model),
            "estimated_memory_bytes": self.found.memory.total,
            "estimated_seconds": seconds / processes.count,
        }
        if asked.accumulate == "auto":
            figures["batch_pieces"] = self.found.pieces
        if asked.checkpoint_activations == "auto":
            figures["activations"] = "computed again" if settings.checkpoint_activations else "kept"
        if processes.count > 1:
            figures["processes"] = processes.count
        return figures


def moving(model: transformers.PreTrainedModel) -> list[torch.nn.Parameter]:
    """The weights that training changes."""
    return [weight for weight in model.parameters() if weight.requires_grad]


def sizes_of(model: transformers.PreTrainedModel) -> dict[str, float | str]:
    """`parameters`, those of an adapter included, and `trainable_parameters`."""
    return {"parameters": parameters_of(model), "trainable_parameters": sum(w.numel() for w in moving(model))}


def make(
    wanted: Wanted, reading: Reading, processes: Processes, progress: Progress, *, last: Path | None = None
) -> Made:
    """The model of `wanted`, in the faster precision where it fits, else in the other one.

    Args:
        last: a checkpoint that training goes on from, in its precision.

    Raises:
        BadInput: it fits in neither; says what to change.
    """
    available = available_bytes()

    def made(precision: Precision) -> Made:
        parts = processes.count if wanted.fsdp else 1
        return Made(wanted, reading, precision, parts, *_loaded(wanted, precision), available=available)

    first, *others = _precisions(wanted, last, processes, progress)
    one = made(first)
    for other in others:
        if processes.total([not one.found.fits])[0]:
            # Of the two only one is in memory at a time.
            del one
            one = made(other)
            if not processes.total([not one.found.fits])[0]:
                progress.note(f"training in {other.name}: {first.name} would not fit into the memory")
                break
            del one
            one = made(first)
    check_fits(one.found, one.remedy)
    return one


def _loaded(
    wanted: Wanted, precision: Precision
) -> tuple[transformers.PreTrainedModel, dict[torch.Tensor, Round], Imitation]:
    """The model with what is put on it or in place of its weights, its grids and its objective."""
    transformers.set_seed(wanted.seed)
    still = wanted.settings.freeze_layers
    # What is shared out need not fit into one process's GPU: layer by layer its parts go there.
    device = "cpu" if wanted.fsdp else fastest_device()
    model = load_base(wanted.folder, wanted.adapter, dtype=precision.dtype, device=device)
    if wanted.head is not None:
        attach(model, wanted.head)
    if fuses(model):
        fuse_norms(model)
    grids = grids_of(model, wanted.rounding)
    _freeze(model, still, grids)
    if wanted.adapter:
        put_adapter(model, wanted.adapter, first=still)
        if wanted.adapter.method in LOW_RANK:
            fuse_updates(model)
    return model, grids, wanted.imitate(model)


def _freeze(model: transformers.PreTrainedModel, layers: int, grids: dict[torch.Tensor, Round]) -> None:
    """Let the lowest `layers` stay as they are, on the grid that they will ship on."""
    for weight in freeze(model, layers):
        if weight in grids:
            with torch.no_grad():
                weight.copy_(grids[weight](weight.float()))


def _precisions(wanted: Wanted, last: Path | None, processes: Processes, progress: Progress) -> list[Precision]:
    """What a checkpoint was trained in goes on in the same; else what the first process finds, and the other."""
    if wanted.settings.precision == "auto" and last:
        found = [Precision(**kept_state(last)["precision"])]
    else:
        config = AutoConfig.from_pretrained(wanted.folder, local_files_only=True, trust_remote_code=False)
        found = precisions(wanted.settings.precision, config)
        bf16 = processes.first_says(found[0].name == "bf16")
        found.sort(key=lambda one: (one.name == "bf16") != bf16)
    if found[0].fp32_gflops is not None:
        progress.note(found[0].said())
    return found
