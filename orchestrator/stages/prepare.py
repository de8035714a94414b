"""prepare: brings the base model and the data sets to this cluster, from a path, a hub id or a command.

A command runs once per text of the command and of the files that it names, and its output folder is kept under
`$ORCH_HOME/prepared/`. Artifacts: `base_model`, `dataset.train`, `dataset.test`.
"""

import json
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from orchestrator import processes
from orchestrator.config import Model
from orchestrator.digests import digest_path, digest_value
from orchestrator.errors import InputError
from orchestrator.stages.base import Context, Outputs, Resources, local_path

LIBRARIES: tuple[str, ...] = ()
WORKERS = ("fetch",)
METRICS: tuple[str, ...] = ()

URI_SCHEMES = ("s3://", "gs://", "az://", "http://", "https://")


class Source(Model):
    """Where a model comes from; a plain text is its path or hub id."""

    path: str | None = None
    """A local path or a hub id; with `prepare`, the path inside the command's output folder."""
    prepare: str | None = None
    """A command that writes into the folder that {out} stands for; {dataset} is the training data set's folder."""
    license: str | None = None
    """Its licence, such as apache-2.0, where the catalog cannot know it; for a model of the catalog, what holds instead
    of the catalog's."""

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _something(self) -> "Source":
        if self.path is None and self.prepare is None:
            raise ValueError("a path, a hub id or a prepare command is needed")
        if self.path and self.path.startswith(URI_SCHEMES):
            raise ValueError(f"{self.path.split(':')[0]}:// is not available yet; copy it to a local path")
        if self.prepare and "{out}" not in self.prepare:
            raise ValueError("a prepare command needs {out}, the folder that it writes to")
        try:
            shlex.split(self.prepare or "")
        except ValueError as error:
            raise ValueError(f"the prepare command cannot be split into words: {error}") from error
        return self


class Dataset(Source):
    """One data set: a file of rows, a hub id, or a command that writes the file."""

    type: Literal["chat"] = "chat"
    """Shape of the rows; `chat` is {"messages": [{"role", "content"}]}."""

    @model_validator(mode="before")
    @classmethod
    def _known_type(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("type") in ("instruction", "completion", "preference"):
            raise ValueError(f"type {value['type']!r} is not available yet; convert the rows to chat messages")
        return value


class Config(Model):
    """What the stage reads from the recipe."""

    base_model: Source
    """The model to start from."""
    revision: str | None = None
    """Commit of a hub model."""
    datasets: list[Dataset] = Field(default=[], max_length=1)
    """Training rows."""
    test_datasets: list[Dataset] = Field(default=[], max_length=1)
    """Held-out rows."""


def estimate(config: Config) -> Resources:
    """One core; the size of a hub model is not known here."""
    return Resources(num_cpus=1)


def identity(source: Source, cwd: Path, dataset: Source | None = None) -> dict[str, Any]:
    """What decides whether a source has changed: the content of a path, or a command and the files that it names.

    Raises InputError for a local path or a command's file that does not exist.
    """
    if source.prepare:
        files = {word: digest_path(path)[0] for word, path in _files(source.prepare, cwd).items()}
        inner = identity(dataset, cwd) if dataset and "{dataset}" in source.prepare else None
        return {"prepare": source.prepare, "files": files, "dataset": inner, "path": source.path}
    path = local_path(source.path, cwd)
    return {"content": digest_path(path)[0]} if path.exists() else {"hub": source.path}


def check_exists(source: Source, cwd: Path, what: str) -> None:
    """Raises InputError for something that is meant as a local path, or as a command's script, and is not there."""
    if source.prepare:
        words = shlex.split(source.prepare)
        missing = [word for word in words if word.endswith((".py", ".sh")) and not (cwd / word).is_file()]
        if missing:
            raise InputError(f"{what}: no file {missing[0]} in {cwd}, which its prepare command names")
    elif source.path and looks_local(source.path) and not local_path(source.path, cwd).exists():
        raise InputError(f"{what}: no file or folder {source.path} in {cwd}")


def looks_local(path: str) -> bool:
    """Whether a text is meant as a path and not as a hub id `owner/name`."""
    return (
        path.startswith((".", "/", "~")) or path.count("/") != 1 or Path(path).suffix in (".jsonl", ".parquet", ".json")
    )


def run(config: Config, context: Context) -> Outputs:
    """Raises InputError when a command fails or leaves nothing, or when a path does not exist."""
    artifacts: dict[str, str] = {}
    report: dict[str, Any] = {}
    train = config.datasets[0] if config.datasets else None
    for name, datasets in (("train", config.datasets), ("test", config.test_datasets)):
        for dataset in datasets:
            artifacts[f"dataset.{name}"] = str(_resolve(dataset, f"dataset.{name}", context, None, None))
            report |= _report(dataset, context)
    folder = _prepared_folder(train, context, None) if train and train.prepare else None
    if folder is None and "dataset.train" in artifacts:
        folder = Path(artifacts["dataset.train"])
    artifacts["base_model"] = str(_resolve(config.base_model, "base_model", context, folder, config.revision))
    return Outputs(
        artifacts=artifacts, report=report | {"base_model": config.base_model.path or config.base_model.prepare}
    )


def _resolve(source: Source, what: str, context: Context, dataset: Path | None, revision: str | None) -> Path:
    if source.prepare:
        found = _prepared(source, what, context, dataset) / (source.path or "")
        if not found.exists():
            raise InputError(f"{what}: the prepare command left no {source.path!r} in its output folder")
        return found
    check_exists(source, context.cwd, what)
    path = local_path(source.path, context.cwd)
    if path.exists():
        return path
    context.say(f"{what}: downloading {source.path}")
    kind = "model" if what == "base_model" else "dataset"
    result = context.worker("fetch", {"repository": source.path, "revision": revision, "kind": kind})
    return Path(result["path"])


def _prepared_folder(source: Source, context: Context, dataset: Path | None) -> Path:
    files = _files(source.prepare or "", context.cwd).values()
    key = {"command": source.prepare, "files": [digest_path(file)[0] for file in files]}
    if dataset is not None and "{dataset}" in (source.prepare or ""):
        key["dataset"] = digest_path(dataset)[0]
    return context.home / "prepared" / digest_value(key)[:16]


def _prepared(source: Source, what: str, context: Context, dataset: Path | None) -> Path:
    """The output folder of a command, which runs unless it has before; a half-made folder is never used."""
    from filelock import FileLock  # a plan locks nothing

    folder = _prepared_folder(source, context, dataset)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not folder.exists():
            partial = folder.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            _command(source.prepare or "", what, partial, dataset, context)
            partial.rename(folder)
    return folder


def _command(command: str, what: str, out: Path, dataset: Path | None, context: Context) -> None:
    context.say(f"{what}: {command}")
    words = [word.replace("{out}", str(out)).replace("{dataset}", str(dataset)) for word in shlex.split(command)]
    here = str(Path(sys.executable).parent)  # `python` must be this one, with its libraries
    environment = {"PATH": f"{here}{os.pathsep}{os.environ.get('PATH', '')}"}
    log = context.directory / f"{what}.log"
    process = processes.start(words, log=log, environment=environment, directory=context.cwd)
    code = process.wait()
    if code:
        raise InputError(f"{what}: `{command}` failed ({processes.died_of(code)}):\n{process.last_lines()}")


def _files(command: str, cwd: Path) -> dict[str, Path]:
    """The existing files that a command names, by its words for them: a changed script is another command."""
    return {word: cwd / word for word in shlex.split(command) if "{" not in word and (cwd / word).is_file()}


def _report(source: Source, context: Context) -> dict[str, Any]:
    """`report.json` of a prepare command's folder, for the run's report."""
    if not source.prepare:
        return {}
    path = _prepared_folder(source, context, None) / "report.json"
    return dict(json.loads(path.read_text())) if path.is_file() else {}
