"""`slmops serve` from start to end, as a process."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def serving(bundle: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process and the address that it tells."""
    command = [
        sys.executable,
        "-m",
        "slmops.cli.main",
        "serve",
        str(bundle),
        "--port",
        "0",
        "--threads",
        "1",
        *arguments,
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr
        line = process.stderr.readline()
        assert " at http" in line, line + process.stderr.read()
        yield process, line.split(" at ")[1].strip()
    finally:
        process.kill()
        process.wait()


def refused(*arguments: str) -> str:
    command = [sys.executable, "-m", "slmops.cli.main", "serve", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_told_to_stop_it_finishes_what_it_has_taken(writer):
    with serving(writer) as (process, address):
        body = {"model": "tiny", "prompt": "a", "max_tokens": 100, "temperature": 2.0, "stream": True, "n": 8}
        told = urllib.request.Request(f"{address}/completions", json.dumps(body).encode())  # noqa: S310 - loopback
        with urllib.request.urlopen(told, timeout=60) as response:  # noqa: S310 - loopback
            response.readline()
            process.send_signal(signal.SIGTERM)
            rest = response.read().decode()
        assert rest.endswith("data: [DONE]\n\n")
        assert process.wait(60) == 0


def test_a_port_in_use(writer):
    with socket.create_server(("127.0.0.1", 0)) as other:
        said = refused(str(writer), "--port", str(other.getsockname()[1]))
    assert "cannot listen on 127.0.0.1" in said
    assert "--port" in said


def test_nobody_listens_to_the_world_without_a_key(writer):
    assert "--api-key-file" in refused(str(writer), "--host", "0.0.0.0")  # noqa: S104
