"""The process of `slmops serve`: what it is started with, the cheapest checked first, and what signals change."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from slmops.errors import BadInput
from slmops.recipe.privacy import is_loopback
from slmops.serve import allocator, journal, traces
from slmops.serve.access import Keys
from slmops.serve.accounts import Accounts, Sink
from slmops.serve.app import Server
from slmops.serve.connections import bind, room_for
from slmops.serve.intake import Limits
from slmops.serve.journal import Journal
from slmops.serve.metrics import Metrics
from slmops.serve.run import serve
from slmops.serve.served import Served
from slmops.serve.swap import Swap


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `slmops serve` is told; see its help."""

    bundle: Path
    host: str
    port: int
    keys: Path | None
    threads: int
    slots: int
    queue: int
    connections: int | None
    grace_s: float
    open_to_all: bool
    watch: bool
    log_content: bool
    engine: str | None
    streams: int
    adapters: int


def run(options: Options, *, started: Callable[[str, str, str], None]) -> None:
    """Serve a bundle until SIGTERM or SIGINT.

    Args:
        started: told the model's name, what runs it, and the address, once requests are taken.

    Raises:
        BadInput: something of that cannot be done; nothing was started then.
    """
    allocator.bound()
    keys = _keys(options)
    limits = Limits(connections=room_for(options.connections))
    spans = traces.exporter()
    sockets = bind(options.host, options.port)
    with contextlib.ExitStack() as at_end:
        for one in sockets:
            at_end.callback(one.close)
        # Nothing here holds on to the model, which another may take the place of.
        server = Server(_load(options, options.bundle.resolve(), None), keys, limits)
        name, engine, log = server.served.name, server.served.engine, Journal()
        at_end.callback(log.close)
        sinks: list[Sink] = [journal.requests(log, name)]
        if spans:
            told = traces.Traces(spans, name)
            at_end.callback(told.close)
            sinks.append(told.write)
        server.accounts = Accounts(sinks, content=options.log_content)
        serve(
            server,
            sockets,
            host=options.host,
            grace_s=options.grace_s,
            started=lambda where: started(name, engine, where),
            beside=partial(_beside, options, server, log),
        )


def _keys(options: Options) -> Keys:
    keys = Keys.read(options.keys) if options.keys else Keys()
    if not (keys or options.open_to_all or is_loopback(f"http://{options.host}")):
        raise BadInput(
            f"{options.host} can be reached from outside, and nobody would need a key",
            hint="give --api-key-file, or say --open-to-all",
        )
    return keys


def _load(options: Options, folder: Path, metrics: Metrics | None) -> Served:
    return Served(
        folder,
        slots=options.slots,
        threads=options.threads,
        queue=options.queue,
        metrics=metrics,
        engine=options.engine,
        streams=options.streams,
        adapters=options.adapters,
    )


def _beside(
    options: Options, server: Server, log: Journal, loop: asyncio.AbstractEventLoop
) -> Sequence[Coroutine[Any, Any, None]]:
    """What goes on while the server answers."""
    swap = Swap(server, options.bundle, partial(_load, options), log)

    def read_again() -> None:
        if options.keys:
            _read_keys(options.keys, server, log)
        swap.wanted.set()

    loop.add_signal_handler(signal.SIGHUP, read_again)
    return [swap.run(), *([swap.watch()] if options.watch else [])]


def _read_keys(path: Path, server: Server, log: Journal) -> None:
    try:
        server.keys = Keys.read(path)
    except BadInput as error:
        log.write("keys_refused", why=str(error))
    else:
        log.write("keys_read", keys=len(server.keys))
