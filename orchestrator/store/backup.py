"""A copy of the store in any storage, and a store from such a copy.

A backup is one moment of the database, as a SQLite file whatever it was, and a manifest that is written last and whose
name holds its own checksum; with them the artifacts of finished stages, if asked for. All but the manifest is kept by
digest, so that the next backup sends only what is new. Since the file is a store, a backup of an older version is
migrated as any store is, and one of SQLite can be restored into PostgreSQL.
"""

import hashlib
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from sqlalchemy import URL, Connection, insert, select

from orchestrator.config import Model
from orchestrator.digests import digest_path
from orchestrator.errors import InputError
from orchestrator.store import schema
from orchestrator.store.artifacts import Artifacts
from orchestrator.store.check import BATCH, finished_artifacts
from orchestrator.store.database import Database
from orchestrator.store.identity import who

_FOLDER = "backups"
_HISTORY = {"events"}
"""Tables whose rows are never rewritten: what happened, happened in the folder that it names."""


class Saved(Model):
    """An artifact of a finished stage."""

    path: str
    digest: str


class Manifest(Model):
    """What a backup consists of."""

    created: float
    by: str
    store: str
    """Where the store was."""
    home: str
    version: int
    """Of the schema."""
    rows: dict[str, int]
    database: str
    """Digest of the SQLite file."""
    artifacts: list[Saved]


def backup(database: Database, home: Path, uri: str, *, artifacts: bool, clock: Callable[[], float] = time.time) -> str:
    """Copy the store to a storage, with the artifacts of finished stages in `home` if asked for; the backup's URI.

    Raises InputError when the storage cannot be written, or an artifact is not what its stage has made.
    """
    storage = Artifacts(uri)
    with tempfile.TemporaryDirectory() as folder:
        copied = _file(Path(folder), clock)
        with database.snapshot() as source, copied.begin() as target:
            rows = _copy(source, target, lambda table, row: row)
            made = finished_artifacts(source) if artifacts else []
        copied.close()
        digest = storage.put(Path(copied.place))
    saved = [_save(storage, Path(row["path"]), row["digest"]) for row in made if Path(row["path"]).is_relative_to(home)]
    found = Manifest(created=clock(), by=who(), store=database.place, home=str(home), version=schema.VERSION,
                     rows=rows, database=digest, artifacts=saved)  # fmt: skip
    content = found.model_dump_json(indent=1).encode()
    stamp = f"{datetime.fromtimestamp(found.created, UTC):%Y%m%d-%H%M%S}"
    name = f"{_FOLDER}/{stamp}-{hashlib.sha256(content).hexdigest()[:16]}.json"
    storage.publish(name, content)
    return f"{storage.uri}/{name}"


def restore(database: Database, home: Path, uri: str) -> Manifest:
    """Fill an empty store from the newest backup at a URI, or from the one that it names; what the backup holds.

    Paths below the folder of the store that was saved become paths below `home`.
    Raises InputError when the store is not empty or the backup is damaged; the database is then as it was.
    """
    storage, name = _find(uri)
    found = _manifest(storage, name)
    with tempfile.TemporaryDirectory() as folder:
        storage.get(found.database, Path(folder) / "orch.db")
        saved = _file(Path(folder), database.clock)
        with database.begin() as target:
            _must_be_empty(target, database.place)  # before anything large is fetched
        for artifact in found.artifacts:
            _bring_back(storage, artifact, Path(_moved(artifact.path, found.home, str(home))))
        with saved.snapshot() as source, database.begin() as target:
            _must_be_empty(target, database.place)
            _copy(source, target, lambda table, row: _relocated(table, row, found.home, str(home)))
            database.backend.after_copy(target)
            database.event(target, "store.restored", data={"message": f"{storage.uri}/{name}"})
        saved.close()
    return found


def _file(folder: Path, clock: Callable[[], float]) -> Database:
    return Database(URL.create("sqlite", database=str(folder / "orch.db")), clock)


def _copy(
    source: Connection, target: Connection, change: Callable[[str, dict[str, Any]], dict[str, Any]]
) -> dict[str, int]:
    """All rows of all tables; how many of each."""
    rows = dict.fromkeys(schema.metadata.tables, 0)
    for name, table in schema.metadata.tables.items():
        found = source.execute(select(table).execution_options(yield_per=BATCH)).mappings()
        for part in found.partitions():
            target.execute(insert(table), [change(name, dict(row)) for row in part])
            rows[name] += len(part)
    return rows


def _must_be_empty(connection: Connection, place: str) -> None:
    full = [name for name, table in schema.metadata.tables.items() if connection.execute(select(table)).first()]
    if full:
        raise InputError(
            f"{place} is not empty (it has {', '.join(full)}): a backup is restored into an empty store only",
            next_step="set ORCH_HOME to an empty folder, or ORCH_STORE to an empty database",
        )


def _save(storage: Artifacts, path: Path, expected: str) -> Saved:
    if not path.exists():
        raise InputError(
            f"the artifact {path} is missing", next_step="`orch store check` lists all; --artifacts is what needs it"
        )
    digest = storage.put(path)
    if digest != expected:
        raise InputError(f"the artifact {path} has changed since it was made", next_step="`orch store check` lists all")
    return Saved(path=str(path), digest=digest)


def _bring_back(storage: Artifacts, artifact: Saved, place: Path) -> None:
    if not place.exists():
        storage.get(artifact.digest, place)
    elif digest_path(place)[0] != artifact.digest:
        raise InputError(
            f"{place} is in the way of an artifact of the backup", next_step="move it away, or use an empty ORCH_HOME"
        )


def _find(uri: str) -> tuple[Artifacts, str]:
    if uri.endswith(".json"):
        root, _, name = uri.rpartition(f"/{_FOLDER}/")
        return Artifacts(root), f"{_FOLDER}/{name}"
    storage = Artifacts(uri)
    names = [name for name in storage.names(_FOLDER) if name.endswith(".json")]
    if not names:
        raise InputError(f"no backup at {uri}", next_step="`orch store backup --to URI` makes one")
    return storage, f"{_FOLDER}/{names[-1]}"


def _manifest(storage: Artifacts, name: str) -> Manifest:
    content = storage.read(name)
    if f"-{hashlib.sha256(content).hexdigest()[:16]}.json" not in name:
        raise InputError(f"{storage.uri}/{name} is damaged: its checksum is not that of its name")
    try:
        found = Manifest.model_validate_json(content)
    except ValidationError as error:
        raise _newer(f"{storage.uri}/{name}") from error
    if found.version > schema.VERSION:
        raise _newer(f"{storage.uri}/{name}")
    return found


def _newer(name: str) -> InputError:
    return InputError(f"{name} was written by a newer version", next_step="upgrade orch")


def _relocated(table: str, row: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    return row if table in _HISTORY or old == new else {name: _moved(value, old, new) for name, value in row.items()}


def _moved(value: Any, old: str, new: str) -> Any:
    """The value with every path below `old` as one below `new`."""
    if isinstance(value, str):
        return new + value[len(old) :] if value == old or value.startswith(f"{old}/") else value
    if isinstance(value, dict):
        return {key: _moved(inner, old, new) for key, inner in value.items()}
    return [_moved(inner, old, new) for inner in value] if isinstance(value, list) else value
