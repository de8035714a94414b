"""A user's own catalog: `catalog/*.yaml` with the keys models, gpus, licenses, gpu_prices and api_prices."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from orchestrator.catalog.gpus import Gpu
from orchestrator.catalog.licenses import License
from orchestrator.catalog.models import ModelFacts
from orchestrator.catalog.prices import ApiPrice, GpuPrice
from orchestrator.catalog.shipped import FOLDER, Row, Tables
from orchestrator.config import Model
from orchestrator.documents import read
from orchestrator.validation import validate


class OwnCatalog(Model):
    """One file. Every part is optional."""

    models: list[ModelFacts] = []
    """New models, or known ones with the fields that differ."""
    gpus: list[Gpu] = []
    """New GPUs, or known ones with the fields that differ."""
    licenses: list[License] = []
    """New licences, or known ones with the fields that differ."""
    gpu_prices: list[GpuPrice] = []
    """Replace those of the same GPU, provider, term and shape."""
    api_prices: list[ApiPrice] = []
    """Replace those of the same vendor, model and tier."""


_ENTRIES = ("models", "gpus", "licenses")
_IDENTITY = {"gpu_prices": ("gpu", "provider", "term", "shape"), "api_prices": ("vendor", "model", "tier")}


def project_folder(directory: Path) -> Path | None:
    """`catalog` with YAML files in it, in the nearest folder at or above this one; never the shipped one."""
    for folder in (directory, *directory.parents):
        found = folder / "catalog"
        if found.is_dir() and found.resolve() != FOLDER and any(found.glob("*.yaml")):
            return found
    return None


def files(folders: Iterable[Path]) -> list[Path]:
    """In the order in which they are read; the later ones win."""
    return [path for folder in folders if folder.is_dir() for path in sorted(folder.glob("*.yaml"))]


def extended(tables: Tables, path: Path) -> Tables:
    """The tables with what a file adds. Raises RecipeError with every problem of it, InputError if it is not YAML."""
    document = read(path)
    for part in _ENTRIES:
        known: dict[str, Row] = tables[part]  # type: ignore[literal-required]
        entries = document.data.get(part)
        if isinstance(entries, list):
            document.data[part] = [_completed(entry, known) for entry in entries]
    found = validate(OwnCatalog, document, name=str(path), check=lambda own: _strangers(own, tables))
    result: dict[str, Any] = dict(tables)
    for part in _ENTRIES:
        result[part] = {**result[part], **{entry.id: _fields(entry) for entry in getattr(found, part)}}
    for part, identity in _IDENTITY.items():
        rows = [_fields(row) for row in getattr(found, part)]
        mine = {_identity(row, identity) for row in rows}
        result[part] = [*rows, *(row for row in result[part] if _identity(row, identity) not in mine)]
    return cast(Tables, result)


def _completed(entry: Any, known: dict[str, Row]) -> Any:
    """A user's entry over the fields of the known one of that id; its source and grade are not inherited."""
    before = known.get(str(entry.get("id"))) if isinstance(entry, dict) else None
    if before is None:
        return entry
    return {**{key: value for key, value in before.items() if key not in ("source", "verified", "date")}, **entry}


def _strangers(own: OwnCatalog, tables: Tables) -> Iterable[tuple[tuple[str | int, ...], str]]:
    """Prices of GPUs that nobody describes."""
    known = {*tables["gpus"], *(gpu.id for gpu in own.gpus)}
    for index, price in enumerate(own.gpu_prices):
        if price.gpu not in known:
            from orchestrator.plugins import nearest

            yield ("gpu_prices", index, "gpu"), f"no GPU has the id {price.gpu!r}; {nearest(price.gpu, sorted(known))}"


def _fields(entry: Model) -> Row:
    return entry.model_dump(exclude_unset=True)


def _identity(row: Row, fields: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(row.get(field) or {"term": "on-demand", "tier": "standard"}.get(field) for field in fields)
