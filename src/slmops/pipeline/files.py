"""Files that must be whole: digests, syncing to disk, links, and what a full or read-only disk means to a user."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from slmops.errors import BadInput, SlmopsError

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOT_WRITABLE = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR}


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_digest(path: Path) -> str:
    """Hex digest of what a file or folder holds, whatever it is called and wherever it lies.

    A folder's digest covers the relative path and digest of every file below it; empty folders do not count.
    Digests of unchanged files (same inode, size and time) are computed once per process.

    Raises:
        BadInput: there is nothing at `path`, or it cannot be read.
    """
    try:
        if path.is_dir():
            lines = [f"{name} {_file_digest(path / name)}\n" for name in files_below(path)]
            return hashlib.sha256("folder\n{}".format("".join(lines)).encode()).hexdigest()
        return _file_digest(path)
    except OSError as error:
        raise BadInput(f"cannot read {error.filename or path}: {error.strerror}") from error


def _file_digest(path: Path) -> str:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise BadInput(f"{path} is not a plain file")
    return _digest_once(path, status.st_ino, status.st_size, status.st_mtime_ns)


@cache
def _digest_once(path: Path, _inode: int, _size: int, _changed_ns: int) -> str:
    return sha256(path)


def files_below(folder: Path) -> list[str]:
    """Relative POSIX paths of everything below `folder` that is not itself a folder, sorted.

    A link to a folder is listed and not followed.

    Raises:
        OSError: a folder cannot be listed.
    """

    def fail(error: OSError) -> None:
        raise error

    found = []
    for parent, folders, names in os.walk(folder, onerror=fail):
        links = [name for name in folders if Path(parent, name).is_symlink()]
        found += [Path(parent, name).relative_to(folder).as_posix() for name in (*names, *links)]
    return sorted(found)


def sync(path: Path) -> None:
    """Force a file's bytes, or a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` hold what `source` holds, without copying bytes where that is safe.

    Only a read-only file is hard-linked, as every file of a stored artifact is: two names of one file would
    otherwise let a later edit of a user's data change an artifact behind its digest. Anything else, and a file
    on another file system, is copied. Missing parent folders of `target` are made.

    Raises:
        FileExistsError: `target` exists and `source` can be linked.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.stat().st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH) == 0:
        try:
            # A link to a symbolic link would leave the artifact with a pointer to somewhere else.
            os.link(source.resolve(), target)
            return
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP):
                raise
    shutil.copyfile(source, target)


def bytes_below(*folders: Path) -> int:
    """Bytes of all files below `folders`; a file with several names counts once."""
    sizes = {(status.st_dev, status.st_ino): status.st_size for status in _statuses(folders)}
    return sum(sizes.values())


def bytes_freed_without(*folders: Path) -> int:
    """Bytes that deleting `folders` gives back: those of files that have no name outside them."""
    names: dict[tuple[int, int], int] = {}
    freed = 0
    for status in _statuses(folders):
        file = (status.st_dev, status.st_ino)
        names[file] = names.get(file, 0) + 1
        if names[file] == status.st_nlink:
            freed += status.st_size
    return freed


def _statuses(folders: tuple[Path, ...]) -> Iterator[os.stat_result]:
    for folder in folders:
        for name in files_below(folder) if folder.exists() else ():
            yield (folder / name).lstat()


@contextmanager
def storage_errors(home: Path) -> Iterator[None]:
    """Say in a user's words that the disk below `home` is full or cannot be written.

    Raises:
        SlmopsError: the disk is full.
        BadInput: `home` cannot be written.
    """
    try:
        yield
    except SlmopsError:
        raise
    except Exception as error:
        if _is_full(error):
            raise SlmopsError(
                f"no space left for {home}: {error}",
                hint="free some disk (`slmops store gc --keep-runs 1`), then run the same command: it goes on",
            ) from error
        if _is_read_only(error, home):
            raise BadInput(
                f"cannot write below {home}: {error}", hint="make it writable or choose another folder with --home"
            ) from error
        raise


def _is_full(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in _NO_ROOM
    if isinstance(error, sqlite3.OperationalError):
        return error.sqlite_errorcode == sqlite3.SQLITE_FULL
    # Libraries that write files outside Python, such as safetensors, have errors of their own for it.
    return os.strerror(errno.ENOSPC) in str(error)


def _is_read_only(error: Exception, home: Path) -> bool:
    if isinstance(error, OSError) and isinstance(error.filename, str | os.PathLike):
        return error.errno in _NOT_WRITABLE and Path(error.filename).absolute().is_relative_to(home.absolute())
    if isinstance(error, sqlite3.OperationalError):
        return error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)
    return False
