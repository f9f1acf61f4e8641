"""What the allocator of a server keeps, seen in a process of its own: its settings are for good."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

_PROGRAM = """
import ctypes, json, os, sys, tempfile, threading
from slmops.serve.allocator import bound
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
libc.fdopen.restype, libc.fdopen.argtypes = ctypes.c_void_p, [ctypes.c_int, ctypes.c_char_p]
libc.malloc_info.argtypes, libc.fclose.argtypes = [ctypes.c_int, ctypes.c_void_p], [ctypes.c_void_p]
if sys.argv[1] == "bound":
    bound()
libc.free(libc.malloc(24 << 20))
held, everyone = [], threading.Barrier(6)
def take():
    everyone.wait()
    held.append(libc.malloc(16 << 20))
    held.append(libc.malloc(100))
    everyone.wait()
threads = [threading.Thread(target=take) for _ in range(6)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
with tempfile.TemporaryFile() as file:
    stream = libc.fdopen(os.dup(file.fileno()), b"w")
    libc.malloc_info(0, stream)
    libc.fclose(stream)
    file.seek(0)
    text = file.read().decode()
mapped = text.rsplit('type="mmap" count="', 1)[1].split('"', 1)[0]
print(json.dumps({"heaps": text.count("<heap nr="), "mapped": int(mapped)}))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of glibc")
def test_large_blocks_lie_apart_and_threads_share_heaps() -> None:
    found = {}
    for how in ("bound", "free"):
        told = subprocess.run([sys.executable, "-c", _PROGRAM, how], capture_output=True, text=True, check=True)
        found[how] = json.loads(told.stdout)
    assert found["bound"]["heaps"] <= 2 < found["free"]["heaps"]
    assert found["bound"]["mapped"] >= 6 > found["free"]["mapped"]
