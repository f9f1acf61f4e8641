"""Documents that are written from the code: kept in the repository, and checked to be current."""

from __future__ import annotations

import argparse
from pathlib import Path


def keep(text: str, document: Path, module: str) -> int:
    """The command line of a module that generates a document: `python -m MODULE [--check] [FILE]`.

    Args:
        text: what the document should hold.
        document: where it is kept, unless FILE says otherwise.
        module: what to run to write it.

    Returns:
        The exit status: 1 when `--check` is given and the document is stale, else 0.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=f"Write {document} from the code.")
    parser.add_argument("file", nargs="?", type=Path, default=document)
    parser.add_argument("--check", action="store_true", help="only say whether FILE is current")
    arguments = parser.parse_args()
    if not arguments.check:
        arguments.file.parent.mkdir(parents=True, exist_ok=True)
        arguments.file.write_text(text, encoding="utf-8")
        return 0
    if arguments.file.is_file() and arguments.file.read_text(encoding="utf-8") == text:
        return 0
    print(f"{arguments.file} is stale: run python -m {module}")
    return 1
