"""`slmops serve`: a bundle behind an OpenAI-compatible address."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from slmops.cli.bundle import BundleFolder, Threads

if TYPE_CHECKING:
    from slmops.serve.served import Served


def register(app: typer.Typer) -> None:
    app.command("serve")(serve)


def serve(
    bundle: BundleFolder,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")] = 8000,
    api_key_file: Annotated[
        Path | None, typer.Option("--api-key-file", metavar="FILE", help="Keys that are let in, one a line.")
    ] = None,
    threads: Threads = 0,
    max_concurrency: Annotated[
        int, typer.Option("--max-concurrency", min=1, max=256, help="Answers written at a time.")
    ] = 16,
    engine: Annotated[
        str | None,
        typer.Option(
            "--engine",
            metavar="NAME",
            help="What runs the bundle: its own runtime, or another that runs the same file (onnxruntime-genai, "
            "openvino); auto measures which is the fastest here.",
        ),
    ] = None,
    expected_streams: Annotated[
        int, typer.Option("--expected-streams", min=1, help="Requests at a time that --engine auto goes by.")
    ] = 8,
    queue: Annotated[int, typer.Option("--queue", min=1, help="Requests that wait at most; others get 429.")] = 256,
    grace_s: Annotated[
        float, typer.Option("--grace", min=0, metavar="SECONDS", help="For requests under way at the end.")
    ] = 30,
    open_to_all: Annotated[
        bool, typer.Option("--open-to-all", help="Listen on other addresses than loopback without keys.")
    ] = False,
) -> None:
    """Serve a bundle over OpenAI's chat completions, completions and models, until Ctrl-C or SIGTERM."""
    from slmops.errors import BadInput
    from slmops.recipe.privacy import is_loopback
    from slmops.serve.access import Keys
    from slmops.serve.app import Limits, Server
    from slmops.serve.run import serve as run
    from slmops.serve.served import Served

    keys = Keys.read(api_key_file) if api_key_file else Keys()
    if not (keys or open_to_all or is_loopback(f"http://{host}")):
        raise BadInput(
            f"{host} can be reached from outside, and nobody would need a key",
            hint="give --api-key-file, or say --open-to-all",
        )
    served = Served(
        bundle, slots=max_concurrency, threads=threads, queue=queue, engine=engine, streams=expected_streams
    )
    server = Server(served, keys, Limits())
    run(server, host=host, port=port, grace_s=grace_s, started=lambda where: _started(served, where))


def _started(served: Served, where: str) -> None:
    typer.echo(f"{served.name} (by {served.engine}) at {where}/v1", err=True)
