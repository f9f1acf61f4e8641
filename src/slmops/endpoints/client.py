"""One request to an OpenAI-compatible endpoint, and everything that may come back.

aiohttp, because a request costs it a fourteenth of the processor time that OpenAI's own SDK takes (ADR 17).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from slmops.errors import BadInput
from slmops.privacy.audit import Gate, check_gate
from slmops.recipe.privacy import is_loopback

if TYPE_CHECKING:
    from aiohttp import ClientResponse, FormData

_MOST_BYTES = 16 * 2**20
"""Of one answer: no server can fill the memory."""

_MOST_SHOWN = 200

_PASSING = frozenset({408, 409, 425, 429})
"""Statuses below 500 after which a second try may go well."""

_OF_THE_REQUEST = frozenset({400, 413, 422})
"""Statuses that are about this one request: another may go well."""

_MAY_HIDE_AN_ANSWER = frozenset({408, 502, 504, 520, 522, 524})
"""Statuses by which a gateway, not the model, gave up: an answer may have been written, and be charged."""


@dataclass(frozen=True)
class Endpoint:
    """A model behind an OpenAI-compatible address.

    Attributes:
        base_url: up to and without `/chat/completions`.
        model: as the server calls it.
        key: sent as bearer token; never shown and never kept.
    """

    base_url: str
    model: str
    key: str | None = field(default=None, repr=False)

    @property
    def host(self) -> str:
        """With its port: `api.example.com`, `127.0.0.1:8000`."""
        return urlsplit(self.base_url).netloc

    def clean(self, said: object) -> str:
        """What a server or library said, on one line, short, and without the key, which some servers repeat."""
        text = " ".join(str(said).split())
        return (text.replace(self.key, "…") if self.key else text)[:_MOST_SHOWN]


@dataclass(frozen=True)
class Reply:
    """A completion.

    Attributes:
        text: empty where the message has no content.
        finish: why it ended: `stop`, `length`, `content_filter`, …; None where the server does not say.
        prompt_tokens, completion_tokens: None where the server does not count.
        cached_tokens: of the prompt, read from the server's cache.
        latency_s: from the request to the last byte of the answer.
        reasoning: what the model thought before, where the server keeps it apart.
    """

    text: str
    finish: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int
    latency_s: float
    reasoning: str = ""


class Failure(Exception):
    """A request that brought no completion. Its text says what the endpoint did: `answers 503: busy`.

    Attributes:
        status: of HTTP; None where there was no answer, or a senseless one.
        retryable: a second try may go well.
        of_the_request: only this request is refused; others may go well.
        charged: the server may have written an answer and charge it.
        wait_s: what the server asks to wait before the next try.
        hint: what to do next.
    """

    def __init__(
        self,
        what: str,
        *,
        status: int | None = None,
        retryable: bool = True,
        of_the_request: bool = False,
        charged: bool = False,
        wait_s: float | None = None,
        hint: str = "wait until the server is well",
    ) -> None:
        super().__init__(what)
        self.status, self.retryable, self.of_the_request = status, retryable, of_the_request
        self.charged, self.wait_s, self.hint = charged, wait_s, hint

    @property
    def busy(self) -> bool:
        """The server asks for fewer requests."""
        return self.status == 429


class Nonsense(Failure):
    """An answer with status 200 that is no completion. It may be charged: the model may have been asked."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"does not speak the OpenAI protocol: {what}",
            charged=True,
            hint="the address is what stands before /chat/completions; it ends with /v1 in most servers",
        )


def key_of(variable: str | None, whose: str) -> str | None:
    """The key in an environment variable; None for no variable.

    Args:
        whose: for the message: `the judge`.

    Raises:
        BadInput: the environment does not have it.
    """
    if variable is None:
        return None
    if not (key := os.environ.get(variable)):
        raise BadInput(f"{whose}'s key is missing: ${variable} is not set", hint=f"export {variable}=…")
    return key


class Client:
    """Connections to one endpoint, for the length of an `async with` block."""

    def __init__(self, endpoint: Endpoint, *, timeout_s: float, connections: int, gate: Gate | None = None) -> None:
        """Args:
        timeout_s: of one request.
        connections: that may be open at once.
        gate: where requests are written down before they leave; an endpoint on this machine may go without.

        Raises:
            TypeError: one on another machine has none.
        """
        check_gate(gate, endpoint.base_url)
        self.endpoint, self.gate = endpoint, gate
        self._timeout_s, self._connections = timeout_s, connections

    async def __aenter__(self) -> Client:
        from aiohttp import ClientSession, ClientTimeout, TCPConnector

        # A local server that wants no key still wants a header.
        headers = {"Authorization": f"Bearer {self.endpoint.key or 'none'}"}
        self._session = ClientSession(
            connector=TCPConnector(limit=self._connections),
            timeout=ClientTimeout(total=self._timeout_s),
            headers=headers,
        )
        self._proxy = _proxy(self.endpoint.base_url)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def complete(
        self, messages: Sequence[Mapping[str, str]], *, idempotency_key: str | None = None, **sampling: Any
    ) -> Reply:
        """Ask once.

        Args:
            idempotency_key: by which a server can tell a request that it has already answered.
            sampling: further members of the request: `max_tokens`, `temperature`, ….

        Raises:
            Failure: no completion came.
            SlmopsError: the request cannot be written down at the gate; it was not sent.
        """
        body = json.dumps({"model": self.endpoint.model, "messages": list(messages), **sampling}).encode()
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        if self.gate:
            self.gate.leaving(body, messages)
        begun = time.perf_counter()
        content = await self.send("POST", "/chat/completions", body, headers=headers)
        return self._read(content, time.perf_counter() - begun)

    async def send(
        self, method: str, path: str, body: bytes | FormData | None = None, *, headers: Mapping[str, str] | None = None
    ) -> bytes:
        """Ask for anything, once; the content of the answer.

        Args:
            path: behind the base address.
            body: JSON, or a form; the time limit is then not of the whole request but of each pause in it.

        Raises:
            Failure: no answer came, or one that says no.
        """
        async with self._answer(method, path, body, headers or {}, pauses=not isinstance(body, bytes)) as response:
            return await _content(response)

    async def lines(self, path: str) -> AsyncIterator[bytes]:
        """The lines of a file at the endpoint, as they come; the last one may be a part of one.

        Raises:
            Failure: it does not come, or breaks off.
        """
        async with self._answer("GET", path, None, {}, pauses=True) as response:
            begun = b""
            async for chunk in response.content.iter_any():
                *whole, begun = (begun + chunk).split(b"\n")
                for line in whole:
                    yield line
                if len(begun) > _MOST_BYTES:
                    raise Nonsense(f"a line of more than {_MOST_BYTES} bytes")
            yield begun

    @asynccontextmanager
    async def _answer(
        self, method: str, path: str, body: bytes | FormData | None, headers: Mapping[str, str], *, pauses: bool
    ) -> AsyncIterator[ClientResponse]:
        """What comes back, its content still to be read.

        Args:
            pauses: the time limit is of each of them alone: a large file takes as long as it takes.

        Raises:
            Failure: see `send`.
        """
        import aiohttp

        pause = aiohttp.ClientTimeout(None, sock_connect=self._timeout_s, sock_read=self._timeout_s)
        limit: Any = {"timeout": pause} if pauses else {}
        form = {"Content-Type": "application/json"} if isinstance(body, bytes) else {}
        try:
            # A redirect would carry the key to wherever it leads.
            async with self._session.request(
                method,
                f"{self.endpoint.base_url.rstrip('/')}{path}",
                data=body,
                headers={**form, **headers},
                proxy=self._proxy,
                allow_redirects=False,
                **limit,
            ) as response:
                if response.status not in (200, 201):
                    wait_s = _seconds(response.headers.get("Retry-After"))
                    raise self.refused(response.status, _message(await _content(response)), wait_s)
                yield response
        except aiohttp.ClientConnectorError as error:
            raise self._silent(error, charged=False) from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._silent(error, charged=True) from None

    def _silent(self, error: Exception, *, charged: bool) -> Failure:
        said = self.endpoint.clean(error)
        return Failure(
            f"does not answer: {type(error).__name__}" + (f": {said}" if said else ""),
            charged=charged,
            hint="see whether the server runs and the address is right",
        )

    def refused(self, status: int, said: str, wait_s: float | None = None) -> Failure:
        """A status that says no, and whose fault it is."""
        passing, of_the_request = status in _PASSING or status >= 500, status in _OF_THE_REQUEST
        hint = "wait until the server is well" if passing else "see to the address, the model and the key"
        return Failure(
            f"answers {status}: {self.endpoint.clean(said)}",
            status=status,
            retryable=passing,
            of_the_request=of_the_request,
            charged=status in _MAY_HIDE_AN_ANSWER,
            wait_s=wait_s,
            hint=hint,
        )

    def _read(self, content: bytes, latency_s: float) -> Reply:
        """The completion in a body. Servers send what they like, with status 200 too."""
        try:
            answer = json.loads(content)
        except ValueError:
            answer = content.decode("utf-8", "replace")
        return self.reply(answer, latency_s)

    def reply(self, answer: Any, latency_s: float = 0.0) -> Reply:
        """The completion in an answer, as plain JSON.

        Args:
            latency_s: 0 where nobody waited for it.

        Raises:
            Nonsense: there is none in it.
        """
        try:
            choice = answer["choices"][0]
            text = choice["message"].get("content")
            # As DeepSeek and vLLM call it, and as OpenRouter and later vLLM do.
            thought = choice["message"].get("reasoning_content") or choice["message"].get("reasoning")
        except (LookupError, TypeError, AttributeError):
            raise Nonsense(f"no choices in {self.endpoint.clean(answer)[:80]!r}") from None
        # A refusal has no content: the model was asked, and wrote nothing that counts.
        if not isinstance(text, str | None):
            raise Nonsense(f"content is {text!r:.80}")
        usage = answer.get("usage")
        finish = choice.get("finish_reason")
        return Reply(
            text or "",
            finish if isinstance(finish, str) else None,
            _count(usage, "prompt_tokens"),
            _count(usage, "completion_tokens"),
            _count(_member(usage, "prompt_tokens_details"), "cached_tokens") or 0,
            latency_s,
            thought if isinstance(thought, str) else "",
        )


def _proxy(url: str) -> str | None:
    """The environment's proxy for an address. Looked up once: aiohttp would ask a thread for each request.

    What goes to this machine goes through none, whatever the environment says: it would leave by it.
    """
    if is_loopback(url):
        return None
    parts = urlsplit(url)
    return None if proxy_bypass(parts.netloc) else getproxies().get(parts.scheme)


async def _content(response: ClientResponse) -> bytes:
    content = bytearray()
    async for chunk in response.content.iter_any():
        content += chunk
        if len(content) > _MOST_BYTES:
            raise Nonsense(f"more than {_MOST_BYTES} bytes")
    return bytes(content)


def _message(content: bytes) -> str:
    """What an error's body says: its message where it has OpenAI's form."""
    text = content.decode("utf-8", "replace")
    try:
        return str(json.loads(text)["error"]["message"])
    except (ValueError, LookupError, TypeError):
        return text


def _member(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _count(usage: Any, name: str) -> int | None:
    number = _member(usage, name)
    return number if type(number) is int and number >= 0 else None


def _seconds(header: str | None) -> float | None:
    """`Retry-After`: seconds or a date."""
    if header is None:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None
