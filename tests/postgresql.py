"""A real PostgreSQL server for tests: made by `initdb` in a temporary folder, reached by a socket, gone at the end."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import psycopg

from orchestrator import processes

_START_TIMEOUT_S = 60.0


class Server:
    """Running until `stop`; `start` runs it again on the same data."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self._binaries, self._folder, self._schemas = binaries, folder, count(1)
        data = str(folder / "data")
        self._run("initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        self.start()

    @property
    def url(self) -> str:
        """Of its database `postgres`."""
        return f"postgresql://postgres@/postgres?host={self._folder}"

    def fresh(self) -> str:
        """URL of an empty store: a schema of its own in that database."""
        schema = f"test_{next(self._schemas)}"
        self.execute(f"CREATE SCHEMA {schema}")
        return f"{self.url}&options=-csearch_path%3D{schema}"

    def execute(self, statement: str) -> None:
        """As the superuser."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement.encode())

    def start(self) -> None:
        """Returns once it answers."""
        command = [str(self._binaries / "postgres"), "-D", str(self._folder / "data"), "-k", str(self._folder)]
        command = _as_its_user([*command, "-c", "listen_addresses=", "-c", "recovery_init_sync_method=syncfs"])
        self._process = processes.start(command, log=self._folder / "log", grace_s=1)
        deadline = time.monotonic() + _START_TIMEOUT_S
        while True:
            try:
                self.execute("SELECT 1")
                return
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, self._process.last_lines()
                time.sleep(0.05)

    def stop(self) -> None:
        """As a crash would."""
        self._run("pg_ctl", "stop", "-D", str(self._folder / "data"), "-m", "immediate")
        self._process.stop()

    def _run(self, program: str, *arguments: str) -> None:
        command = _as_its_user([str(self._binaries / program), *arguments])
        subprocess.run(command, check=True, capture_output=True, timeout=_START_TIMEOUT_S, cwd=self._folder)


def binaries() -> Path | None:
    """Folder of `initdb`, `pg_ctl` and `postgres`; None when PostgreSQL is not installed."""
    on_path = shutil.which("initdb")
    folders = [Path(on_path).resolve().parent] if on_path else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "pg_ctl").exists()), None)


@contextmanager
def running(binaries: Path) -> Iterator[Server]:
    """A server until the end of the block."""
    folder = Path(tempfile.mkdtemp(prefix="orch-pg-", dir="/tmp"))  # a socket's path is at most 107 bytes
    folder.chmod(0o777)  # the server's user writes here, tests connect from here
    server = Server(binaries, folder)
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


def _as_its_user(command: list[str]) -> list[str]:
    """PostgreSQL refuses to run as root; its package has made a user for it."""
    if os.getuid() != 0:
        return command
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", *command]
