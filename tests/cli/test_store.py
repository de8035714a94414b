"""`orch store backup|restore|check` as a user runs them, with their exit codes."""

import os
import sqlite3
from pathlib import Path

import pytest

from orchestrator.store.store import Store
from tests.cli.conftest import Orch
from tests.postgresql import Server


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A store with one run, whose only stage has left a file."""
    home = tmp_path / "home"
    store, rows = Store(home), home / "stages" / "data" / "rows.jsonl"
    rows.parent.mkdir(parents=True)
    rows.write_text("{}\n")
    store.create_run("r1", "demo", {}, [("data", "d")])
    store.move_run("r1", "running")
    store.end_stage(store.claim_stage("r1", "data"), "succeeded", outputs={"artifacts": {"rows": str(rows)}})
    store.move_run("r1", "succeeded")
    store.database.close()
    return home


def test_a_store_is_saved_and_comes_back_elsewhere(orch: Orch, home: Path, tmp_path: Path) -> None:
    saved = orch("store", "backup", "--to", f"file://{tmp_path}/backups", "--artifacts", home=home)
    assert (saved.returncode, saved.stderr) == (0, "")
    assert saved.stdout.startswith(f"saved as file://{tmp_path}/backups/backups/")
    restored = orch("store", "restore", "--from", saved.stdout.split()[-1], home=tmp_path / "new")
    assert restored.stdout == (
        f"restored into {tmp_path}/new/orch.db, as it was in {home}/orch.db: runs: 1, events: 5, artifacts: 1\n"
    )
    checked = orch("store", "check", home=tmp_path / "new")
    assert checked.stdout == f"{tmp_path}/new/orch.db is whole: runs: 1, events: 6, artifacts: 1 (0.0 MB)\n"
    assert checked.returncode == 0


def test_check_ends_with_5_and_names_what_is_wrong(orch: Orch, home: Path) -> None:
    (home / "stages" / "data" / "rows.jsonl").unlink()
    checked = orch("store", "check", home=home)
    assert checked.returncode == 5
    assert checked.stdout == f"run r1: artifact rows of data is missing: {home}/stages/data/rows.jsonl\n"
    assert "problems: 1; runs: 1, events: 5, artifacts: 1 (0.0 MB)" in checked.stderr


@pytest.mark.parametrize("command", [["store", "check"], ["status"], ["store", "backup", "--to", "/tmp"]])
def test_a_store_of_a_newer_version_ends_every_command_with_2(orch: Orch, home: Path, command: list[str]) -> None:
    with sqlite3.connect(home / "orch.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    done = orch(*command, home=home)
    assert done.returncode == 2
    assert "was written by a newer version (schema 99" in done.stderr
    assert done.stderr.count("\n") == 2, "an error and its next step"


def test_a_restore_over_a_store_ends_with_2(orch: Orch, home: Path, tmp_path: Path) -> None:
    orch("store", "backup", "--to", str(tmp_path / "backups"), home=home)
    done = orch("store", "restore", "--from", str(tmp_path / "backups"), home=home)
    assert done.returncode == 2
    assert "is not empty" in done.stderr


def test_a_team_uses_one_postgresql(orch: Orch, tmp_path: Path, postgresql: Server) -> None:
    url = postgresql.fresh()
    for name in ("ann", "bob"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "orch.yaml").write_text(f"store: '{url}'\n")
    Store(tmp_path / "ann").create_run("r1", "demo", {}, [("data", "d")])
    assert "r1" in orch("status", "--json", home=tmp_path / "bob").stdout
    assert not (tmp_path / "ann" / "orch.db").exists()


def test_a_server_that_is_gone_ends_with_5(orch: Orch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "ORCH_STORE", f"postgresql://ann:secret@/orch?host={tmp_path}")
    done = orch("status")
    assert done.returncode == 5
    assert done.stderr.startswith("error: the store postgresql://ann:***@/orch")
    assert "secret" not in done.stderr
    assert "Traceback" not in done.stderr
