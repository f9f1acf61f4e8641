"""A teacher on loopback that answers after a fixed time, counts and charges: `_teach_server.py LATENCY_MS`.

Prints its port. `GET /stats` gives requests by question, picodollars for every answer that it wrote, and the seconds of
the processor that it took. It does little more than that, so that it takes no time from what is measured.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from typing import ClassVar

PROMPT_TOKENS, ANSWER_TOKENS = 40, 3
READ, WRITTEN = 2_000_000, 10_000_000
_END = b"\r\n\r\n"
_MESSAGE = {"role": "assistant", "content": "refund"}
_ANSWER = {
    "choices": [{"index": 0, "message": _MESSAGE, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": ANSWER_TOKENS},
}


def response(body: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return head.encode() + _END + body


ANSWER = response(json.dumps(_ANSWER).encode())


class Teacher(asyncio.Protocol):
    """One connection."""

    asked: ClassVar[Counter[str]] = Counter()
    charged = 0
    latency_s = float(sys.argv[1]) / 1e3 if len(sys.argv) > 1 else 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.came = transport, b""

    def data_received(self, data: bytes) -> None:
        self.came += data
        while _END in self.came:
            head, _, rest = self.came.partition(_END)
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
            if len(rest) < length:
                return
            body, self.came = rest[:length], rest[length:]
            self.answer(head, body)

    def answer(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"GET"):
            stats = {"asked": self.asked, "charged": Teacher.charged, "cpu_s": time.process_time()}
            self.transport.write(response(json.dumps(stats).encode()))
            return
        self.asked[json.loads(body)["messages"][-1]["content"]] += 1
        Teacher.charged += PROMPT_TOKENS * READ + ANSWER_TOKENS * WRITTEN
        asyncio.get_running_loop().call_later(self.latency_s, self.transport.write, ANSWER)


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Teacher, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
