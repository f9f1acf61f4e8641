"""A search whose trials are trained on the machines of a real Ray cluster, one of which is killed meanwhile."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from slmops.errors import BadInput
from slmops.recipe import load_recipe
from slmops.tune.search import tune
from tests.ray_cluster import cluster, ends

pytest.importorskip("ray", reason="it is installed apart: pip install 'slmops[ray]'")

__all__ = ["cluster", "ends"]

SEARCH = ("tune.sampler=random", "train.epochs=3", "train.batch_tokens=64")
AWAY = (*SEARCH, "executor=ray", "train.checkpoint_seconds=0.01")


def values(found: dict[str, Any]) -> list[float]:
    """By what was tried, in whichever order it was."""
    assert {one["state"] for one in found["trials"]} == {"measured"}
    return [one["value"] for one in sorted(found["trials"], key=lambda one: str(one["values"]))]


def works(node: Any) -> bool:
    """Whether a machine is at a trial."""
    raylet = node.all_processes["raylet"][0].process.pid
    return any("ray::_work" in " ".join(one.cmdline()) for one in psutil.Process(raylet).children(recursive=True))


def test_a_machine_that_is_killed_loses_no_trial(cluster: Any, recipe: Path) -> None:
    made, nodes = cluster
    home = recipe.parent / "away"

    def kill() -> None:
        lost = None
        while lost is None:
            time.sleep(0.01)
            # What is looked at may be done, and gone, meanwhile.
            with suppress(FileNotFoundError, psutil.NoSuchProcess):
                if any((home / "work").glob("*/checkpoint-*[0-9]/state.json")):
                    lost = next(filter(works, nodes), None)
        made.remove_node(lost, allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    away = tune(recipe, AWAY, trials=2, workers=2, home=home)
    killer.join()
    said = "\n".join(log.read_text() for log in home.glob("**/*.log"))
    assert "was lost; its work goes on elsewhere" in said
    assert load_recipe(recipe.with_name("recipe.best.yaml"))

    here = tune(recipe, SEARCH, trials=2, home=recipe.parent / "here")
    assert values(away) == pytest.approx(values(here), rel=1e-4)


def test_what_no_machine_has_room_for_is_refused_before_work(cluster: Any, recipe: Path) -> None:
    with pytest.raises(BadInput, match="no machine of the cluster has 1 cores and 2 GPUs"):
        tune(recipe, (*AWAY, "tune.gpus=2"), home=recipe.parent / "away")
    assert not (recipe.parent / "away").exists()
    with pytest.raises(BadInput, match="set `executor: ray`"):
        tune(recipe, (*SEARCH, "tune.gpus=2"), home=recipe.parent / "away")
