"""The one protocol between the pipeline and the rooms."""

from __future__ import annotations

import logging
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NoReturn, Protocol, runtime_checkable

from pydantic import BaseModel

from slmops.progress import Evaluated, Progress, Silent

Make = Callable[[Sequence["Node"]], Mapping[str, Path]]
"""Makes the artifacts of nodes, or finds them, and says the folder of each. Their inputs are each other's names, those
of nodes that were asked for before, or those of the inputs of the stage that asks."""


Spread = Callable[[str, Sequence[str]], Iterator[tuple[int, str]]]
"""Calls the function at an import path (`package.module:function`) with each of the texts, anywhere that has the same
files, and gives the number of a text with what came back, as it comes. A call may be made twice, where a machine is
lost in between. Raises what a function raises."""


def one_by_one(function: str, items: Sequence[str]) -> Iterator[tuple[int, str]]:
    """`Spread` in this process."""
    call: Callable[[str], str] = pkgutil.resolve_name(function)
    for number, item in enumerate(items):
        yield number, call(item)


def _makes_nothing(nodes: Sequence[Node]) -> NoReturn:
    raise TypeError(f"a stage that asks for others derives from `Asks`: {[node.id for node in nodes]}")


def goes_on(_evaluations: int, _loss: float) -> None:
    """`Evaluated` of a training that nobody looks on at."""


@dataclass(frozen=True)
class Context:
    """What a stage may use besides its inputs and settings.

    Attributes:
        out: an empty folder; the files written here become the artifact.
        work: a folder that survives a kill and is handed to the same stage again: checkpoints, partial answers.
            It is deleted once the artifact is whole.
        kept: a folder that all stages of a home share and nothing deletes: what was paid for. None outside of a home.
        seed: the recipe's seed.
        progress: where to report; never print.
        log: the run's log file.
        make: asks for other stages' artifacts; for stages that derive from `Asks`.
        evaluated: who looks on and may end a training early.
        spread: does pieces of the stage's work, where the run has other machines there.
    """

    out: Path
    work: Path
    seed: int
    kept: Path | None = None
    progress: Progress = field(default_factory=Silent)
    log: logging.Logger = field(default_factory=lambda: logging.getLogger("slmops"))
    make: Make = _makes_nothing
    evaluated: Evaluated = goes_on
    spread: Spread = one_by_one


class Stage(Protocol):
    """A step of a run: a pure function of files and settings, given an address.

    A stage is a class without state, so an executor can send its import path to another process or machine.
    """

    name: ClassVar[str]
    """Names the kind of work; part of the key."""

    version: ClassVar[int]
    """Raised when the same inputs would now give another result; part of the key."""

    libraries: ClassVar[tuple[str, ...]]
    """Distributions whose installed versions shape the result; part of the key."""

    def run(self, inputs: Mapping[str, Path], settings: Any, context: Context) -> Mapping[str, float | str]:
        """Write the artifact's files below `context.out` and return its headline figures.

        Args:
            inputs: the folder of each upstream artifact, or the path of each outside file, by name; read-only.
            settings: this stage's slice of the recipe, a pydantic model.
            context: where to write and whom to tell.

        Raises:
            SlmopsError: what a user can mend, said so that they can.
        """


class Asks:
    """Base of a stage that asks for others, which depend on what it has seen by then: `Context.make`.

    Each of them is cached under a key of its own, whoever asks. Such a stage decides and does no work, so it stays in
    the process of the run, whatever executor does the work of the others.
    """


class Helped(Exception):
    """Raised by a process whose part of the work that several do together is done, and who has nothing to write."""


@runtime_checkable
class Together(Protocol):
    """Settings of a stage whose work several processes of a machine may do together. Each of them calls `run` with the
    same arguments, as below a launcher; the first writes what comes out, the others raise `Helped` at their end.
    """

    @property
    def processes(self) -> int:
        """How many; 1 is this one."""


@runtime_checkable
class NeedsMore(Protocol):
    """Settings of a stage that needs something which is no input: a key in the environment, a program, a device."""

    def check_surroundings(self) -> None:
        """Called for every stage that is to run, before the first one does.

        Raises:
            BadInput: it is not there.
        """


@runtime_checkable
class Unkeyed(Protocol):
    """Settings of which some bound the work or pay for it, and do not shape its result: they enter no key."""

    unkeyed: ClassVar[Mapping[str, Any]]
    """As `exclude` of pydantic's `model_dump`."""


@runtime_checkable
class UsesMore(Protocol):
    """Settings with which a stage uses libraries that it does not use otherwise."""

    @property
    def libraries(self) -> tuple[str, ...]:
        """Distributions whose installed versions shape the result, beside those of the stage."""


@runtime_checkable
class UsesElsewhere(Protocol):
    """Settings with which a stage has its work done by libraries of another environment."""

    @property
    def elsewhere(self) -> Mapping[str, str]:
        """Versions that shape the result, under names that no distribution here has.

        Raises:
            BadInput: the environment lacks something.
        """


def elsewhere(node: Node) -> Mapping[str, str]:
    """The versions that shape the result of a node besides those of the libraries here."""
    return node.settings.elsewhere if isinstance(node.settings, UsesElsewhere) else {}


def libraries_of(node: Node) -> tuple[str, ...]:
    """The distributions whose installed versions shape the result of a node."""
    more = node.settings.libraries if isinstance(node.settings, UsesMore) else ()
    return (*node.stage.libraries, *more)


def unkeyed(settings: BaseModel) -> dict[str, Any] | None:
    """What of the settings enters no key."""
    return dict(settings.unkeyed) if isinstance(settings, Unkeyed) else None


@dataclass(frozen=True)
class Node:
    """A stage with its settings and the places its inputs come from.

    Attributes:
        id: unique in the graph, e.g. `score:shipped`.
        inputs: input name to the id of the node that makes it.
        sources: input name to an outside file or folder; its content enters the key, its path does not.
    """

    id: str
    stage: type[Stage]
    settings: BaseModel
    inputs: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, Path] = field(default_factory=dict)
