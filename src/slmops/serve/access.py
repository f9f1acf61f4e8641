"""Who may ask: keys, which are kept as digests alone and compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from pathlib import Path

from slmops.errors import BadInput

_LEAST = 16


class Keys:
    """The keys that are let in; without any, everybody is."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._digests = [_digest(key) for key in keys]

    @classmethod
    def read(cls, path: Path) -> Keys:
        """The keys in a file, one a line; empty lines and those that begin with `#` are none.

        Raises:
            BadInput: the file cannot be read, others may read it, or it holds no key or a short one.
        """
        try:
            lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
            open_to_all = path.stat().st_mode & 0o077
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"the keys in {path} cannot be read: {error}") from None
        if open_to_all:
            raise BadInput(f"others can read the keys in {path}", hint=f"chmod 600 {path}")
        keys = {number: line for number, line in enumerate(lines, 1) if line and not line.startswith("#")}
        if not keys:
            raise BadInput(f"{path} holds no key", hint="write one a line, such as `openssl rand -hex 32` makes")
        if short := [number for number, key in keys.items() if len(key) < _LEAST]:
            raise BadInput(f"{path}:{short[0]}: a key has at least {_LEAST} characters")
        return cls(keys.values())

    def __len__(self) -> int:
        return len(self._digests)

    def client(self, authorization: str | None) -> str | None:
        """Who asks, by `Authorization: Bearer KEY`, as a name that tells nothing of the key; None for nobody."""
        if not self._digests:
            return ""
        scheme, _, key = (authorization or "").partition(" ")
        digest = _digest(key.strip())
        # Every key is looked at, so that time says nothing of where one was found.
        found = [hmac.compare_digest(digest, known) for known in self._digests]
        return digest.hex()[:16] if any(found) and scheme.lower() == "bearer" else None


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
