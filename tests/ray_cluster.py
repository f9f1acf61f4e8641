"""A real Ray cluster with two worker nodes, for the tests that use it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def ends() -> Iterator[None]:
    """A cluster that waits for what never comes fails its test, and does not stop all others."""

    def late(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError("the cluster has not answered for five minutes")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(300)
    yield
    signal.alarm(0)


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[Any, list[Any]]]:
    import ray
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = [made.add_node(num_cpus=1) for _ in range(2)]
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    yield made, nodes
    ray.shutdown()
    made.shutdown()
