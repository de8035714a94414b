"""Artifacts by digest in a folder and in an object store: what comes back is what was put, or one clear error."""

from pathlib import Path

import fsspec
import pytest

from orchestrator.digests import canonical, digest_path
from orchestrator.errors import InputError
from orchestrator.store.artifacts import Artifacts

pytestmark = pytest.mark.parametrize("kind", ["sqlite"], indirect=True)  # no database is involved


@pytest.fixture(params=["file", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Artifacts:
    """`memory` is fsspec's own object store: no folders, no renaming."""
    return Artifacts(str(tmp_path / "storage") if request.param == "file" else f"memory://{tmp_path.name}")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder such as a stage leaves."""
    folder = tmp_path / "model"
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "weights.bin").write_bytes(bytes(range(256)) * 1000)
    (folder / "tokenizer" / "vocab.json").write_text('{"ü": 1}')
    return folder


def _objects(storage: Artifacts) -> dict[str, str]:
    """Key -> path in the storage, of every file and listing."""
    found = storage._fs.find(storage._root)
    return {"/".join(str(path).split("/")[-3:]): str(path) for path in found}


def test_a_folder_comes_back_as_it_was(storage: Artifacts, model: Path, tmp_path: Path) -> None:
    digest = storage.put(model)
    assert digest == digest_path(model)[0]
    back = storage.get(digest, tmp_path / "deep" / "back")
    assert digest_path(back) == digest_path(model)
    assert [path.name for path in back.parent.iterdir()] == ["back"], "nothing temporary is left"


def test_a_file_comes_back_as_it_was(storage: Artifacts, model: Path, tmp_path: Path) -> None:
    digest = storage.put(model / "weights.bin")
    assert digest == digest_path(model / "weights.bin")[0]
    assert storage.get(digest, tmp_path / "back").read_bytes() == (model / "weights.bin").read_bytes()


def test_what_is_there_is_not_sent_again(storage: Artifacts, model: Path) -> None:
    storage.put(model)
    before = {path: storage._fs.modified(path) for path in _objects(storage).values() if "/files/" in path}
    (model / "more.txt").write_text("new")
    storage.put(model)
    after = {path: storage._fs.modified(path) for path in _objects(storage).values() if "/files/" in path}
    assert len(after) == len(before) + 1
    assert before.items() <= after.items()


def test_a_half_written_object_is_replaced(storage: Artifacts, model: Path, tmp_path: Path) -> None:
    digest = storage.put(model / "weights.bin")
    storage._fs.pipe_file(_objects(storage)[f"files/{digest[:2]}/{digest}"], b"half")
    storage.put(model / "weights.bin")
    storage.get(digest, tmp_path / "back")


def test_a_damaged_file_is_refused_by_name(storage: Artifacts, model: Path, tmp_path: Path) -> None:
    digest, weights = storage.put(model), digest_path(model / "weights.bin")[0]
    storage._fs.pipe_file(_objects(storage)[f"files/{weights[:2]}/{weights}"], bytes(256_000))
    with pytest.raises(InputError, match=rf"files/{weights[:2]}/{weights} is damaged"):
        storage.get(digest, tmp_path / "back" / "model")
    assert list((tmp_path / "back").iterdir()) == [], "nothing of it is left"


def test_a_damaged_listing_is_refused_by_name(storage: Artifacts, model: Path, tmp_path: Path) -> None:
    digest = storage.put(model)
    storage._fs.pipe_file(_objects(storage)[f"folders/{digest[:2]}/{digest}"], b"[]")
    with pytest.raises(InputError, match=rf"folders/{digest[:2]}/{digest} is damaged"):
        storage.get(digest, tmp_path / "back")


def test_a_missing_file_is_refused_by_name(storage: Artifacts, model: Path, tmp_path: Path) -> None:
    digest, weights = storage.put(model), digest_path(model / "weights.bin")[0]
    storage._fs.rm(_objects(storage)[f"files/{weights[:2]}/{weights}"])
    with pytest.raises(InputError, match=rf"cannot read .*{weights}"):
        storage.get(digest, tmp_path / "back")


def test_a_listing_that_leads_outside_is_refused(storage: Artifacts, tmp_path: Path) -> None:
    (tmp_path / "evil").write_text("evil")
    listing = tmp_path / "listing"
    listing.write_bytes(canonical([["../../outside", storage.put(tmp_path / "evil")]]))
    digest = storage.put(listing)
    storage.publish(f"folders/{digest[:2]}/{digest}", listing.read_bytes())
    with pytest.raises(InputError, match="outside of itself"):
        storage.get(digest, tmp_path / "back" / "model")
    assert not (tmp_path / "outside").exists()


def test_a_writer_that_is_interrupted_publishes_nothing(tmp_path: Path) -> None:
    storage = Artifacts(str(tmp_path / "storage"))

    def write_half() -> None:
        with storage._place("files/ab/abcd") as place:
            Path(place).write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert fsspec.filesystem("file").find(str(tmp_path / "storage")) == []


@pytest.mark.parametrize(
    ("uri", "message"), [("nope://bucket", "Protocol not known: nope"), ("s3://bucket/orch", "s3fs")]
)
def test_a_storage_without_a_driver_is_one_clear_error(uri: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Artifacts(uri)


def test_a_storage_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    storage = Artifacts(str(tmp_path / "file" / "storage"))
    with pytest.raises(InputError, match=r"cannot write .*file/storage: "):
        storage.publish("name", b"")
