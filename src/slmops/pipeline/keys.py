"""The address of a result before it is made: a digest of everything that shapes it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from typing import Any

from pydantic import BaseModel, ConfigDict

from slmops.errors import BadInput
from slmops.pipeline.files import content_digest
from slmops.pipeline.stage import Node, elsewhere, libraries_of, unkeyed


class Provenance(BaseModel):
    """Everything that shapes a stage's result. What is not in here must not change it.

    Attributes:
        inputs: input name to the key of the artifact.
        sources: source name to the digest of its content.
        libraries: distribution to installed version; those of another environment by the name that the stage gives.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: str
    version: int
    settings: dict[str, Any]
    inputs: dict[str, str]
    sources: dict[str, str]
    libraries: dict[str, str]
    seed: int

    def key(self) -> str:
        """SHA-256 of this record's canonical JSON, in hex."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Step:
    """A node whose result has an address."""

    node: Node
    provenance: Provenance

    @cached_property
    def key(self) -> str:
        return self.provenance.key()


def address(nodes: Sequence[Node], seed: int, given: Mapping[str, str] | None = None) -> list[Step]:
    """The nodes in an order in which they can run, each with its key; nothing runs.

    Args:
        given: names that nodes may take from beside each other's, with the keys of these artifacts.

    Raises:
        BadInput: the graph is not one (two nodes of one name, an unknown input, a cycle), a source cannot be
            read, or a library is not installed.
    """
    keys = dict(given or {})
    steps: list[Step] = []
    for node in in_order(nodes, keys):
        provenance = Provenance(
            stage=node.stage.name,
            version=node.stage.version,
            settings=node.settings.model_dump(mode="json", by_alias=True, exclude=unkeyed(node.settings)),
            inputs={name: keys[source] for name, source in node.inputs.items()},
            sources={name: content_digest(path) for name, path in node.sources.items()},
            libraries={name: _installed(name, node) for name in libraries_of(node)} | dict(elsewhere(node)),
            seed=seed,
        )
        steps.append(Step(node, provenance))
        keys[node.id] = steps[-1].key
    return steps


def in_order(nodes: Sequence[Node], given: Collection[str] = ()) -> list[Node]:
    """The nodes, each after those that it takes from; otherwise in the given order. Those of the names `given` exist.

    Raises:
        BadInput: two nodes of one name, an input and a source of one name, an unknown input, a cycle.
    """
    by_id: dict[str, Node] = {}
    for node in nodes:
        if node.id in by_id or node.id in given:
            raise BadInput(f"two nodes are called `{node.id}`")
        by_id[node.id] = node
    done: dict[str, Node] = {}

    def visit(node: Node, path: tuple[str, ...]) -> None:
        if node.id in path:
            raise BadInput(f"the graph has a cycle: {' → '.join((*path[path.index(node.id) :], node.id))}")
        if node.id in done:
            return
        if twice := node.inputs.keys() & node.sources.keys():
            raise BadInput(f"node `{node.id}` has both an input and a source called `{min(twice)}`")
        for name, source in node.inputs.items():
            if source in given:
                continue
            if source not in by_id:
                raise BadInput(f"node `{node.id}` takes `{name}` from `{source}`, which does not exist")
            visit(by_id[source], (*path, node.id))
        done[node.id] = node

    for node in nodes:
        visit(node, ())
    return list(done.values())


def _installed(library: str, node: Node) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError as error:
        raise BadInput(
            f"stage `{node.id}` needs the package `{library}`, which is not installed", hint=f"pip install {library}"
        ) from error
