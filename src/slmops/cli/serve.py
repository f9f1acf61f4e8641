"""`slmops serve`: a bundle behind an OpenAI-compatible address."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from slmops.cli.bundle import BundleFolder, Threads

if TYPE_CHECKING:
    pass


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
    max_adapters: Annotated[
        int, typer.Option("--max-adapters", min=1, help="Of the bundle, in memory at a time; loaded when asked for.")
    ] = 4,
    queue: Annotated[int, typer.Option("--queue", min=1, help="Requests that wait at most; others get 429.")] = 256,
    max_connections: Annotated[
        int | None,
        typer.Option(
            "--max-connections", min=1, show_default="10000, or what `ulimit -n` allows", help="Others get 503."
        ),
    ] = None,
    grace_s: Annotated[
        float, typer.Option("--grace", min=0, metavar="SECONDS", help="For requests under way at the end.")
    ] = 30,
    open_to_all: Annotated[
        bool, typer.Option("--open-to-all", help="Listen on other addresses than loopback without keys.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Serve another bundle as soon as it takes the place of this one.")
    ] = False,
    log_content: Annotated[bool, typer.Option("--log-content", help="Log what is asked and answered too.")] = False,
) -> None:
    """Serve a bundle over OpenAI's chat completions, completions and models, until Ctrl-C or SIGTERM.

    On SIGHUP the keys are read again, and the bundle that is there now takes over. A line of JSON for each request goes
    to standard output.
    """
    from slmops.serve.process import Options, run

    run(
        Options(
            bundle=bundle,
            host=host,
            port=port,
            keys=api_key_file,
            threads=threads,
            slots=max_concurrency,
            queue=queue,
            connections=max_connections,
            grace_s=grace_s,
            open_to_all=open_to_all,
            watch=watch,
            engine=engine,
            streams=expected_streams,
            adapters=max_adapters,
            log_content=log_content,
        ),
        started=lambda name, by, where: typer.echo(f"{name} (by {by}) at {where}/v1", err=True),
    )
