"""Where the store is, and what cannot be one: one clear error, and nothing half-made."""

import multiprocessing
import os
import stat
import tempfile
from collections.abc import Iterator
from multiprocessing.queues import Queue
from pathlib import Path

import pytest
from sqlalchemy import make_url

from orchestrator.errors import InputError, OrchError
from orchestrator.store import location
from orchestrator.store.store import Store
from tests.postgresql import Server

ONLY_POSTGRESQL = pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
_NOBODY = 65534


@pytest.fixture
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(location.VARIABLE, raising=False)


@pytest.mark.usefixtures("unset")
def test_the_variable_wins_over_the_file_of_the_home_and_that_over_sqlite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert location.shown(location.url_of(tmp_path)) == str(tmp_path / "orch.db")
    (tmp_path / "orch.yaml").write_text("train: {num_epochs: 2}\n")
    assert location.shown(location.url_of(tmp_path)) == str(tmp_path / "orch.db")
    (tmp_path / "orch.yaml").write_text("store: postgresql://team@db/orch\n")
    assert location.shown(location.url_of(tmp_path)) == "postgresql://team@db/orch"
    monkeypatch.setenv(location.VARIABLE, "postgres://other@db/orch")
    assert location.shown(location.url_of(tmp_path)) == "postgresql://other@db/orch"
    monkeypatch.setenv(location.VARIABLE, "postgresql://db/orch?password=secret")
    assert location.shown(location.url_of(tmp_path)) == "postgresql://db/orch?password=hidden"
    monkeypatch.setenv(location.VARIABLE, f"sqlite:///{tmp_path}/mine.db")
    assert location.shown(location.url_of(tmp_path)) == str(tmp_path / "mine.db")


@pytest.mark.usefixtures("unset")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mysql://db/orch", r"\$ORCH_STORE cannot be a store: mysql://db/orch\n.*postgresql://USER@HOST/DATABASE"),
        ("postgresql://ann:secret@db", r"cannot be a store: postgresql://ann:\*\*\*@db"),
        ("sqlite:///orch.db", "needs an absolute path"),
        ("orch.db", "is no URL"),
        ("postgresql://db:port/orch", "is no URL"),
    ],
)
def test_what_cannot_be_a_store_is_refused(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(location.VARIABLE, text)
    with pytest.raises(InputError, match=message) as found:
        Store(tmp_path / "home")
    assert "secret" not in str(found.value)


@pytest.mark.usefixtures("unset")
def test_a_setting_that_is_no_text_names_its_line(tmp_path: Path) -> None:
    (tmp_path / "orch.yaml").write_text("# mine\nstore: [a, b]\n")
    with pytest.raises(InputError, match=r"orch\.yaml:2: store: \['a', 'b'\] is no URL"):
        Store(tmp_path)


def test_a_home_that_is_a_file_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(InputError, match=r"cannot use .*home as the store"):
        Store(tmp_path / "home")


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that another user can reach (pytest's own ones cannot be)."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.usefixtures("unset")
def test_a_folder_without_write_permission_is_one_clear_error(public: Path) -> None:
    said = _as_somebody_else(public / "home")
    assert said.startswith(f"cannot use {public}/home as the store: ")
    assert "Permission denied" in said
    assert "set ORCH_HOME to a folder that can be written" in said
    assert list(public.iterdir()) == []


@pytest.mark.usefixtures("unset")
def test_a_store_without_write_permission_is_one_clear_error(public: Path) -> None:
    Store(public).database.close()
    assert not (public / "orch.db").stat().st_mode & stat.S_IWOTH
    said = _as_somebody_else(public)
    assert said.startswith(f"cannot use {public} as the store: orch.db there cannot be written")


def _as_somebody_else(home: Path) -> str:
    """What `Store(home)` says to a user who may only read; root would be allowed everything."""
    context = multiprocessing.get_context("fork")
    said = context.Queue()
    other = context.Process(target=_open, args=(home, said))
    other.start()
    answer: str = said.get(timeout=30)
    other.join()
    return answer


def _open(home: Path, said: "Queue[str]") -> None:
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(_NOBODY)
        os.setuid(_NOBODY)
    else:
        home.parent.chmod(0o555)
    try:
        Store(home)
        said.put("nothing")
    except OrchError as error:
        said.put(str(error))


@ONLY_POSTGRESQL
def test_a_database_without_write_permission_is_one_clear_error(
    tmp_path: Path, postgresql: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, reader = os.environ[location.VARIABLE], f"reader_of_{tmp_path.name}"
    schema = make_url(url).query["options"].removeprefix("-csearch_path=")
    postgresql.execute(f"CREATE ROLE {reader} LOGIN; GRANT USAGE ON SCHEMA {schema} TO {reader}")
    monkeypatch.setenv(location.VARIABLE, url.replace("postgres@", f"{reader}@"))
    with pytest.raises(InputError, match=rf"cannot use .*: permission denied for schema {schema}\n.*GRANT"):
        Store(tmp_path)
    monkeypatch.setenv(location.VARIABLE, url)
    store = Store(tmp_path)
    store.record("mine")
    postgresql.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {reader}")
    monkeypatch.setenv(location.VARIABLE, url.replace("postgres@", f"{reader}@"))
    theirs = Store(tmp_path)
    assert [event.kind for event in theirs.events()] == ["mine"]
    with pytest.raises(InputError, match="permission denied for table events"):
        theirs.record("not allowed")
    assert len(store.events()) == 1
