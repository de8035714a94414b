"""Results by the names that a user gives them: an id, a name, `latest`, `baseline:NAME`, or a file of any such tool."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.bench.compare import Comparison, compare, only
from orchestrator.bench.result import Cell, Result
from orchestrator.errors import InputError
from orchestrator.loadgen import drive
from orchestrator.loadgen.load import Measurement
from orchestrator.store.store import Store


@dataclass(frozen=True)
class Found:
    """A result and where its files are."""

    result: Result
    folder: Path
    """With its records, where they were kept."""


def folder(home: Path, id: str) -> Path:
    """Where the files of a stored benchmark are."""
    return home / "benchmarks" / id


def find(store: Store, wanted: str) -> Found:
    """Raises InputError that says what there is. `NAME@TARGET` is the part about one target."""
    path = Path(wanted).expanduser()
    if path.is_dir() and (path / "result.json").exists():
        path = path / "result.json"
    if path.is_file():
        return Found(read(path), path.parent)
    whole, at, target = wanted.partition("@")
    if at:
        return _part(find(store, whole), target)
    if wanted.startswith("baseline:"):
        wanted = _baseline(store, wanted.removeprefix("baseline:"))
    return stored(store, wanted)


def _part(found: Found, target: str) -> Found:
    names = [each.name for each in found.result.targets]
    if target not in names:
        raise InputError(f"{found.result.id} has no target {target!r}; it has {', '.join(names)}")
    return Found(only(found.result, target), found.folder)


def stored(store: Store, wanted: str) -> Found:
    """One of the store, by id, the beginning of an id, a name (its newest), or `latest`."""
    found = Result.model_validate(store.benchmark(wanted))
    return Found(found, folder(store.home, found.id))


def read(path: Path) -> Result:
    """A result file of ours, or of a tool whose format is known."""
    ours = _ours(path)
    if ours is not None:
        return Result.model_validate(ours)
    from orchestrator.bench import formats

    return formats.read(path).result


def keep(store: Store, path: Path) -> Result:
    """Store the result of a file; what another tool kept of its requests becomes our records."""
    from orchestrator.bench import formats
    from orchestrator.bench.formats.base import Imported

    ours = _ours(path)
    found = Imported(Result.model_validate(ours), {}) if ours is not None else formats.read(path)
    place = folder(store.home, found.result.id)
    for id, measurement in found.measurements.items():
        place.mkdir(parents=True, exist_ok=True)
        drive.save_records(place / f"{id}.records", measurement)
    store.add_benchmark(found.result.model_dump(mode="json"))
    return found.result


def export(found: Found, form: str, out: Path) -> list[Path]:
    """Write a result in another format; the files. Raises InputError for an unknown one, and for want of records."""
    from orchestrator.bench import formats

    def load(cell: Cell) -> Measurement | None:
        path = found.folder / cell.records if cell.records else None
        return drive.load_records(path) if path is not None and path.exists() else None

    written = []
    for suffix, text in formats.files(form, found.result, load).items():
        path = out.with_name(f"{out.stem}{suffix}" if "." in suffix else f"{out.stem}{suffix}{out.suffix}")
        write(path, text)
        written.append(path)
    return written


def write(path: Path, text: str) -> None:
    """Make a file, and its folder. Raises InputError where that cannot be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}", next_step="name another place") from error


def check_writable(path: Path) -> None:
    """Raises InputError where `write` would; leaves what is there as it is."""
    new = not path.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("ab").close()
        if new:
            path.unlink()
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}", next_step="name another place") from error


def _ours(path: Path) -> Mapping[str, Any] | None:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) and {"cells", "targets", "orch_version"} <= data.keys() else None


def _baseline(store: Store, name: str) -> str:
    found = store.baseline(name)
    if found is None:
        known = ", ".join(baseline.name for baseline in store.baselines()) or "none"
        raise InputError(f"no baseline {name!r} (known: {known})", next_step=f"`orch bench baseline set {name} ID`")
    return found


def compared(a: Found, b: Found) -> Comparison:
    """B against A, by their records where both were kept."""
    folders = {id(found.result): found.folder for found in (a, b)}

    def load(result: Result, cell: Cell) -> Measurement | None:
        path = folders[id(result)] / cell.records if cell.records else None
        return drive.load_records(path) if path is not None and path.exists() else None

    return compare(a.result, b.result, load)


def write_report(result: Result, path: Path, comparison: Comparison | None = None) -> Path:
    """The HTML report as a file; its path."""
    from orchestrator.report.bench import render

    compared = comparison.model_dump(mode="json") if comparison else None
    write(path, render(result.model_dump(mode="json"), compared))
    return path
