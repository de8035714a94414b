"""What is known of a recipe's base model before it is fetched or made: the catalog, its config.json, or nothing yet."""

from pathlib import Path
from typing import NamedTuple

from orchestrator.catalog import config_json
from orchestrator.catalog.catalog import Catalog
from orchestrator.catalog.models import ModelFacts
from orchestrator.errors import InputError
from orchestrator.planner.estimate import Unknown
from orchestrator.planner.plan import PlannedStage
from orchestrator.stages.base import local_path
from orchestrator.stages.prepare import Source
from orchestrator.store.store import Store


class Base(NamedTuple):
    """The base model as far as it is known."""

    facts: ModelFacts | Unknown
    source: str
    """Where its dimensions were read."""
    fetched: bool
    """Whether its files are on this machine."""
    folder: Path | None = None
    """Where, for a folder that the recipe names or that the prepare stage has left."""


def base_model(source: Source, prepared: PlannedStage | None, catalog: Catalog, store: Store, cwd: Path) -> Base:
    """A folder's config.json counts more than the catalog, which counts more than the hub's cache.

    Raises InputError for a config.json that contradicts itself.
    """
    folder = _folder(source, prepared, store, cwd)
    if folder is not None:
        return Base(_licensed(_read(folder, source, catalog), source), f"{folder}/config.json", True, folder)
    name = source.path or ""
    if source.prepare:
        return Base(Unknown(reason="unknown: the base model is not known until its prepare command has run"), "", False)
    cached = config_json.from_cache(name)
    known = catalog.find_model(name)
    if known is not None:
        return Base(_licensed(known, source), f"catalog: {known.source or known.id}", cached is not None)
    if cached is not None:
        return Base(_licensed(cached, source), f"config.json of {name} in the hub's cache", True)
    return Base(Unknown(reason=f"unknown: {_no_model(name, catalog)}"), "", False)


def _folder(source: Source, prepared: PlannedStage | None, store: Store, cwd: Path) -> Path | None:
    """On this machine: what the prepare stage has left, or the path of the recipe."""
    made = store.finished_stage(prepared.digest) if prepared and prepared.reused_from else None
    if made is not None and made.outputs:
        found = Path(made.outputs.get("artifacts", {}).get("base_model", ""))
        return found if (found / "config.json").is_file() else None
    path = local_path(source.path, cwd)
    return path if not source.prepare and (path / "config.json").is_file() else None


def _read(folder: Path, source: Source, catalog: Catalog) -> ModelFacts:
    """The dimensions of the files, and the licence that the catalog knows by the recipe's name for them."""
    found = config_json.from_folder(folder, source.path if source.path and not source.prepare else "base_model")
    known = catalog.find_model(source.path) if source.path and not source.prepare else None
    if known is None:
        return found
    return found.model_copy(update={"license": known.license, "base_licenses": known.base_licenses})


def _licensed(facts: ModelFacts, source: Source) -> ModelFacts:
    if source.license is None:
        return facts
    return facts.model_copy(update={"license": source.license, "base_licenses": []})


def _no_model(name: str, catalog: Catalog) -> str:
    try:
        catalog.model(name)
    except InputError as error:
        return error.message
    raise AssertionError("the catalog was asked for it before")
