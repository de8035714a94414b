"""Bad input: one clear error, exit code 2, and nothing started."""

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Orch
from tests.tiny_model import build_base

CHAT = {"messages": [{"role": "user", "content": "Which licence?"}, {"role": "assistant", "content": "MIT"}]}
RECIPE = """\
name: bad
base_model: {model}
datasets: [{{path: train.jsonl, type: chat}}]
test_datasets: [{{path: test.jsonl, type: chat}}]
train: {{adapter: lora}}
export: [{{name: gguf, engine: llama_cpp, quantization: Q8_0}}]
serve: {{service: bad, target: gguf, port: {port}}}
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_base(tmp_path_factory.mktemp("model"))


@pytest.fixture
def folder(tmp_path: Path, model: Path) -> Path:
    """A folder with a recipe that is right in everything; each test spoils one thing."""
    _rows(tmp_path / "train.jsonl", CHAT)
    other = {"messages": [{"role": "user", "content": "And this?"}, {"role": "assistant", "content": "BSD"}]}
    _rows(tmp_path / "test.jsonl", other)
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(model=model, port=_free_port()))
    return tmp_path


def _rows(path: Path, *rows: Any) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _spoil(folder: Path, old: str, new: str) -> None:
    recipe = folder / "recipe.yaml"
    assert old in recipe.read_text()
    recipe.write_text(recipe.read_text().replace(old, new))


def _refused(orch: Orch, folder: Path, *overrides: str, home: Path | None = None) -> str:
    done = orch("run", "recipe.yaml", *overrides, cwd=folder, home=home)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert not ((home or folder / "home") / "ray.json").exists(), "Ray was started"
    return done.stderr


def test_an_unknown_key(orch: Orch, folder: Path) -> None:
    _spoil(folder, "adapter: lora", "adaptor: lora")
    assert "recipe.yaml:5: unknown key 'train.adaptor'; did you mean 'adapter'?" in _refused(orch, folder)


def test_a_wrong_type(orch: Orch, folder: Path) -> None:
    assert "train.lora_r: input should be a valid integer" in _refused(orch, folder, "train.lora_r=many")


def test_a_duplicate_key(orch: Orch, folder: Path) -> None:
    _spoil(folder, "name: bad", "name: bad\nname: worse")
    assert "recipe.yaml:2: duplicate key 'name', first on line 1" in _refused(orch, folder)


def test_a_missing_data_file(orch: Orch, folder: Path) -> None:
    (folder / "train.jsonl").unlink()
    assert "no file or folder train.jsonl" in _refused(orch, folder)


def test_a_missing_recipe(orch: Orch, folder: Path) -> None:
    (folder / "recipe.yaml").rename(folder / "recipes.yaml")
    assert "did you mean 'recipes.yaml'?" in _refused(orch, folder)


def test_an_empty_data_set(orch: Orch, folder: Path) -> None:
    (folder / "train.jsonl").write_text("")
    assert "the data set is empty" in _refused(orch, folder)


def test_a_row_without_messages(orch: Orch, folder: Path) -> None:
    _rows(folder / "train.jsonl", CHAT, {"text": "MIT"})
    assert "train.jsonl: row 2: " in _refused(orch, folder)


def test_leakage(orch: Orch, folder: Path) -> None:
    shutil.copy(folder / "train.jsonl", folder / "test.jsonl")
    error = _refused(orch, folder)
    assert "1 of 1 test rows are also in the training data" in error
    assert "allow_leakage: true" in error


def test_an_unknown_engine(orch: Orch, folder: Path) -> None:
    _spoil(folder, "llama_cpp", "lama_cpp")
    assert "unknown engine 'lama_cpp'; did you mean 'llama_cpp'?" in _refused(orch, folder)


def test_an_adapter_with_nothing_to_train(orch: Orch, folder: Path) -> None:
    error = _refused(orch, folder, "train.lora_target_modules=[c_attn]")
    assert "c_attn" in error
    assert "q_proj" in error, "the modules that exist are named"


def test_a_port_in_use(orch: Orch, folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        error = _refused(orch, folder, f"serve.port={port}")
    assert f"port {port} on 127.0.0.1" in error
    assert f"serve.port={port + 1}" in error


def test_a_base_model_folder_that_is_not_one(orch: Orch, folder: Path) -> None:
    (folder / "not-a-model").mkdir()
    error = _refused(orch, folder, "base_model=./not-a-model")
    assert "is not a model directory: no config.json" in error


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 32 MB."""
    mount = tmp_path / "small"
    mount.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(mount)], capture_output=True)
    if made.returncode:
        pytest.skip("mounting a tmpfs needs root on Linux")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


def test_a_disk_that_is_too_small_to_start(orch: Orch, folder: Path, small_disk: Path) -> None:
    error = _refused(orch, folder, home=small_disk / "home")
    assert "free, the run needs at least" in error


def test_a_home_that_cannot_be_written(orch: Orch, folder: Path) -> None:
    (folder / "file").write_text("")
    assert "as the store" in _refused(orch, folder, home=folder / "file")


def test_a_run_that_does_not_exist(orch: Orch) -> None:
    done = orch("logs", "nothing-1")
    assert done.returncode == 2
    assert "no run 'nothing-1'" in done.stderr


def test_a_service_that_does_not_exist(orch: Orch) -> None:
    done = orch("rollback", "nothing")
    assert done.returncode == 2
    assert "no service 'nothing'" in done.stderr


def test_an_accelerator_that_is_not_there_is_not_allowed_and_starts_nothing(orch: Orch, tmp_path: Path) -> None:
    if shutil.which("nvidia-smi"):
        pytest.skip("this machine may have the accelerator")
    done = orch("run", "recipes/legal-qlora.yaml")
    assert done.returncode == 3
    assert "H100:1 or A100-80GB:1 or MI300X:1" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "home" / "ray.json").exists()
