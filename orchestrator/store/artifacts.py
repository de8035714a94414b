"""Files and folders by their digest, on any storage that fsspec knows: a folder, s3://, gs://, az://.

    storage = Artifacts("s3://bucket/orch")
    digest = storage.put(Path("model"))            # what is there already is not sent again
    storage.get(digest, Path("elsewhere/model"))   # verified, and in its place all at once

An object `files/ab/abcd…` is a file; `folders/ab/abcd…` lists a folder's files as [name, digest], in the very JSON
whose SHA-256 is the digest of the folder (`digests.digest_path`). Both are verified when they are read. An object is
never seen in part: object stores publish it when it is whole, and in a folder it is renamed into place.
"""

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from orchestrator.digests import canonical, digest_path, files_of
from orchestrator.errors import InputError


class Artifacts:
    """The storage at a URI; nothing is opened or made until something is put."""

    def __init__(self, uri: str) -> None:
        """Raises InputError for a URI that no driver of fsspec, or none that is installed, knows."""
        import fsspec

        self.uri = uri.rstrip("/")
        try:
            self._fs, self._root = fsspec.core.url_to_fs(self.uri)
        except ImportError as error:
            raise InputError(f"{uri}: {error}", next_step="install the driver that it names") from error
        except ValueError as error:
            raise InputError(f"{uri}: {error}", next_step="a folder, or a URI such as s3://bucket/folder") from error

    def put(self, path: Path) -> str:
        """Keep a file or a folder; its digest."""
        if path.is_file():
            return self._put_file(path)
        entries = [(str(file.relative_to(path)), self._put_file(file)) for file in files_of(path)]
        listing = canonical(entries)
        digest = hashlib.sha256(listing).hexdigest()
        self.publish(_key("folders", digest), listing)
        return digest

    def get(self, digest: str, to: Path) -> Path:
        """The file or folder of that digest at `to`, where nothing may be yet. Raises InputError when it is damaged."""
        part = to.with_name(f".{to.name}.{secrets.token_hex(4)}.part")
        part.parent.mkdir(parents=True, exist_ok=True)
        try:
            if self._exists(_key("folders", digest)):
                self._get_folder(digest, part)
            else:
                self._get_file(digest, part)
            part.rename(to)
        finally:
            shutil.rmtree(part, ignore_errors=True) if part.is_dir() else part.unlink(missing_ok=True)
        return to

    def publish(self, name: str, content: bytes) -> None:
        """Write a small object of that name; it is there whole, or not at all."""
        with self._explained("write"), self._place(name) as place:
            self._fs.pipe_file(place, content)

    def read(self, name: str) -> bytes:
        """A small object. Raises InputError when there is none."""
        with self._explained("read"):
            content: bytes = self._fs.cat_file(f"{self._root}/{name}")
        return content

    def names(self, folder: str) -> list[str]:
        """Names of the objects of a folder, sorted; none when there is no such folder."""
        with self._explained("read"):
            found = self._fs.ls(f"{self._root}/{folder}", detail=False) if self._exists(folder) else []
        return sorted(PurePosixPath(name).name for name in found)

    def _put_file(self, path: Path) -> str:
        digest, size = digest_path(path)
        key = _key("files", digest)
        with self._explained("write"):
            if self._exists(key) and self._fs.size(f"{self._root}/{key}") == size:
                return digest
            with self._place(key) as place:
                self._fs.put_file(str(path), place)
        return digest

    def _get_file(self, digest: str, to: Path) -> None:
        with self._explained("read"):
            self._fs.get_file(f"{self._root}/{_key('files', digest)}", str(to))
        found, _ = digest_path(to)
        if found != digest:
            raise self._damaged(_key("files", digest), found)

    def _get_folder(self, digest: str, to: Path) -> None:
        listing = self.read(_key("folders", digest))
        found = hashlib.sha256(listing).hexdigest()
        if found != digest:
            raise self._damaged(_key("folders", digest), found)
        to.mkdir()
        for name, of_file in json.loads(listing):
            place = to / name
            if not place.resolve().is_relative_to(to.resolve()):
                raise InputError(f"{self.uri}: folder {digest} lists a file outside of itself: {name}")
            place.parent.mkdir(parents=True, exist_ok=True)
            self._get_file(of_file, place)

    def _exists(self, key: str) -> bool:
        with self._explained("read"):
            return bool(self._fs.exists(f"{self._root}/{key}"))

    @contextlib.contextmanager
    def _place(self, name: str) -> Iterator[str]:
        """Where to write an object of that name, which appears when the block has ended well."""
        place = f"{self._root}/{name}"
        if "file" not in self._fs.protocol:
            yield place
            return
        part = f"{place}.{secrets.token_hex(4)}.part"
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            _sync(part)
            os.replace(part, place)
            _sync(str(Path(place).parent))
        finally:
            Path(part).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _explained(self, verb: str) -> Iterator[None]:
        try:
            yield
        except InputError:
            raise
        except Exception as error:  # each driver of fsspec has errors of its own: no rights, no network, no bucket
            raise InputError(
                f"cannot {verb} {self.uri}: {error or type(error).__name__}",
                next_step="is the URI right, and may you use it?",
            ) from error

    def _damaged(self, key: str, found: str) -> InputError:
        return InputError(
            f"{self.uri}/{key} is damaged: its contents have the digest {found}", next_step="use another backup"
        )


def _key(kind: str, digest: str) -> str:
    return f"{kind}/{digest[:2]}/{digest}"


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
