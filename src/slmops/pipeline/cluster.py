"""Pieces of a stage's work on a Ray cluster whose machines have the same files under the same paths."""

from __future__ import annotations

import logging
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec

from slmops.errors import BadInput, SlmopsError

TRIES = 6
"""Calls of one piece before it is taken for what ends the machines: lost ones are made again elsewhere."""


def check_ray() -> None:
    """Refuse what needs Ray where it is not installed.

    Raises:
        BadInput: it is not.
    """
    if find_spec("ray") is None:
        raise BadInput("executor: ray needs Ray", hint="pip install 'slmops[ray]'")


def on_ray(function: str, items: Sequence[str]) -> Iterator[tuple[int, str]]:
    """`slmops.pipeline.stage.Spread` on the cluster at `RAY_ADDRESS`, or on one of this machine's cores without it.

    Each piece takes one core. Where a machine or a process is lost, its pieces are done again on what is left, or on
    what comes; what has come back is not. A process keeps what its functions have loaded for the next piece.

    Raises:
        BadInput: Ray is not installed, or there is no cluster at the address.
        SlmopsError: a piece was lost `TRIES` times.
        Exception: what the function raised.
    """
    join()
    import ray
    from ray.exceptions import RayError, RayTaskError

    call = ray.remote(num_cpus=1, max_retries=TRIES - 1)(_call)
    waiting = {call.remote(function, item): number for number, item in enumerate(items)}
    try:
        while waiting:
            (done,), _ = ray.wait(list(waiting), num_returns=1)
            try:
                came = ray.get(done)
            except RayTaskError as error:
                raise error.cause from error
            except RayError as error:
                raise SlmopsError(
                    f"a piece of work ended {TRIES} processes of the cluster that had begun it: "
                    f"{str(error).splitlines()[0]}",
                    hint="what is done is kept: run the same command again",
                ) from error
            yield waiting.pop(done), came
    finally:
        for left in waiting:
            ray.cancel(left, force=True)


def join() -> str:
    """Join the cluster at `RAY_ADDRESS`, or make one of this machine's cores without it; its address.

    Raises:
        BadInput: Ray is not installed, or there is no cluster at the address.
    """
    check_ray()
    import ray

    if not ray.is_initialized():
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR)
        except ConnectionError as error:
            raise BadInput(
                f"there is no Ray cluster at RAY_ADDRESS: {error}", hint="start it: ray start --head"
            ) from error
    return str(ray.get_runtime_context().gcs_address)


def _call(function: str, item: str) -> str:
    called: Callable[[str], str] = pkgutil.resolve_name(function)
    return called(item)
