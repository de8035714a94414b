"""The storage that all nodes of a cluster share: a folder, or s3://, gs://, az:// through its fsspec driver."""

import contextlib
import importlib.util
import secrets
from typing import Any

from orchestrator.errors import InputError
from orchestrator.plugins import nearest

DRIVERS = {"file": "fsspec", "s3": "s3fs", "gs": "gcsfs", "az": "adlfs"}
"""Scheme -> the package that reads and writes it."""


def problem(uri: str) -> str | None:
    """What is wrong with a URI, as far as it can be told without asking the storage; None: nothing."""
    scheme, separator, rest = uri.partition("://")
    if not separator:
        scheme, rest = "file", uri
    if scheme not in DRIVERS:
        return f"no storage has the scheme {scheme!r}; {nearest(scheme, list(DRIVERS))}"
    if scheme == "file" and not rest.startswith("/"):
        return f"{uri!r} needs an absolute path, which is the same folder on every node"
    if not rest.strip("/"):
        return f"{uri!r} names no {'folder' if scheme == 'file' else 'bucket'}"
    if importlib.util.find_spec(DRIVERS[scheme]) is None:
        return f"{scheme}:// needs its driver on every node: `pip install {DRIVERS[scheme]}`"
    return None


def check_writable(uri: str) -> None:
    """Write, read and remove a small object. Raises InputError, with the storage's own words, where one of them fails.

    A folder has to exist: one that is made on a node where the shared disk is not mounted would hide that.
    """
    where = _opened(uri)
    name = f".orch-{secrets.token_hex(8)}"
    try:
        with _explained(uri, "write to"):
            where.write(name, b"orch")
        with _explained(uri, "read from"):
            found = where.read(name)
        if found != b"orch":
            raise InputError(
                f"the storage {uri} gives back something else than was written", next_step="is it one disk?"
            )
    finally:
        with contextlib.suppress(Exception):  # what could not be written cannot be removed
            where.remove(name)


def leave_mark(uri: str) -> str:
    """Write an object whose name nobody can guess; its name, for `has_mark` and `remove_mark`."""
    where, name = _opened(uri), f".orch-{secrets.token_hex(8)}"
    with _explained(uri, "write to"):
        where.write(name, b"orch")
    return name


def has_mark(uri: str, name: str) -> bool:
    """Whether this node sees it."""
    try:
        return _opened(uri).read(name) == b"orch"
    except Exception:  # a driver's own errors: not there, no rights, no network
        return False


def remove_mark(uri: str, name: str) -> None:
    """Nothing is left of it."""
    with contextlib.suppress(Exception):
        _opened(uri).remove(name)


class _Storage:
    def __init__(self, fs: Any, root: str) -> None:
        self.fs, self.root = fs, root

    def write(self, name: str, content: bytes) -> None:
        self.fs.pipe_file(f"{self.root}/{name}", content)

    def read(self, name: str) -> bytes:
        self.fs.invalidate_cache()
        content: bytes = self.fs.cat_file(f"{self.root}/{name}")
        return content

    def remove(self, name: str) -> None:
        self.fs.rm_file(f"{self.root}/{name}")


def _opened(uri: str) -> _Storage:
    import fsspec

    wrong = problem(uri)
    if wrong:
        raise InputError(f"storage: {wrong}")
    with _explained(uri, "open"):
        fs, root = fsspec.core.url_to_fs(uri)
    if "file" in fs.protocol and not fs.isdir(root):
        raise InputError(f"the storage {uri} is no folder on this node", next_step="make it, or mount the shared disk")
    return _Storage(fs, root.rstrip("/"))


@contextlib.contextmanager
def _explained(uri: str, verb: str) -> Any:
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # each driver has errors of its own: no rights, no network, no bucket
        raise InputError(
            f"cannot {verb} the storage {uri}: {error or type(error).__name__}",
            next_step="is the URI right, and may you write there?",
        ) from error
