"""Keys are read from a file that is nobody else's, and kept as digests."""

from __future__ import annotations

import pytest

from slmops.errors import BadInput
from slmops.serve.access import Keys

KEY = "0123456789abcdef-key"


def written(tmp_path, text: str, mode: int = 0o600):
    path = tmp_path / "keys"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_key_lets_in_and_names_nobody(tmp_path):
    keys = Keys.read(written(tmp_path, f"# for the shop\n{KEY}\n\nanother-key-of-the-shop\n"))
    client = keys.client(f"Bearer {KEY}")
    assert client
    assert KEY not in client
    assert client != keys.client("Bearer another-key-of-the-shop")
    assert KEY not in repr(vars(keys))


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", f"Basic {KEY}", KEY, "Bearer \udcff", f"Bearer {KEY}x"]
)
def test_nothing_else_does(header):
    assert Keys([KEY]).client(header) is None


def test_without_keys_everybody_is_let_in():
    assert Keys().client(None) == ""
    assert not Keys()


@pytest.mark.parametrize(
    ("text", "mode", "says"),
    [("", 0o600, "holds no key"), (KEY, 0o644, "others can read"), ("short\n", 0o600, ":1: a key has at least")],
)
def test_files_that_are_refused(tmp_path, text, mode, says):
    with pytest.raises(BadInput, match=says):
        Keys.read(written(tmp_path, text, mode))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(BadInput, match="cannot be read"):
        Keys.read(tmp_path / "none")
