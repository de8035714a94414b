"""The catalog: models, GPUs, prices and licences, each with its source; `load` gives the one that holds for a user.

The shipped files are beside this one. `catalog/*.yaml` of the project (in the nearest folder above that has one), then
of $ORCH_HOME, extend them: an entry with a known id changes only the fields that it names. Shipped entries are checked
when they are asked for, a user's at once, with file and line of every problem.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from orchestrator.catalog import shipped
from orchestrator.catalog.gpus import Gpu
from orchestrator.catalog.licenses import License
from orchestrator.catalog.models import ModelFacts
from orchestrator.catalog.names import gpu_key, memory, model_keys, plain, without_variant
from orchestrator.catalog.prices import ApiPrice, GpuPrice
from orchestrator.config import Model
from orchestrator.errors import InputError

M = TypeVar("M", bound=Model)
Raw = dict[str, dict[str, Any]]
"""Id -> fields, not yet validated."""


class Catalog:
    """What is known; a question about something unknown is an InputError with the nearest names."""

    def __init__(
        self, models: Raw, gpus: Raw, licenses: Raw, gpu_prices: list[dict[str, Any]], api_prices: list[dict[str, Any]]
    ) -> None:
        self._raw: dict[type[Model], Raw] = {ModelFacts: models, Gpu: gpus, License: licenses}
        self._gpu_prices, self._api_prices = gpu_prices, api_prices
        self._made: dict[tuple[type[Model], str], Any] = {}
        self._names: dict[type[Model], dict[str, str]] = {}

    @property
    def models(self) -> list[ModelFacts]:
        """All, in the order of the files."""
        return [self._entry(ModelFacts, key) for key in self._raw[ModelFacts]]

    @property
    def gpus(self) -> list[Gpu]:
        """All, in the order of the files."""
        return [self._entry(Gpu, key) for key in self._raw[Gpu]]

    @property
    def licenses(self) -> dict[str, License]:
        """Key -> licence."""
        return {key: self._entry(License, key) for key in self._raw[License]}

    def find_model(self, name: str) -> ModelFacts | None:
        """The model of that id, alias or variant (`unsloth/Llama-3.1-8B-Instruct-bnb-4bit`), or that of a folder or of
        the local cache by its config.json; None: unknown. Raises InputError for a config.json that lies.
        """
        index = self._index(ModelFacts)
        if not (Path(name).expanduser() / "config.json").is_file():
            found = next((index[key] for key in model_keys(name) if key in index), None)
            if found:
                entry: ModelFacts = self._entry(ModelFacts, found)
                return entry
        from orchestrator.catalog import config_json

        return config_json.find(name)

    def model(self, name: str) -> ModelFacts:
        """As `find_model`; raises InputError with the nearest names."""
        found = self.find_model(name)
        if found is None:
            hint = _nearest(name, list(self._raw[ModelFacts]))
            raise InputError(
                f"the catalog has no model {name!r}; {hint}",
                next_step="`orch models` lists them; a model's folder with its config.json works too, and"
                " catalog/*.yaml in your project adds models",
            )
        return found

    def find_gpu(self, name: str) -> Gpu | None:
        """By id, kind, alias, or free text such as `NVIDIA A100-SXM4-80GB`; None: unknown."""
        index, size = self._index(Gpu), memory(name)
        key = gpu_key(name, index)
        if key is None:
            return None
        found: Gpu = self._entry(Gpu, key)
        if size is None or plain(name) in index or _is_of(found, size):
            return found
        # the part of another size that shares its name, such as V100-16GB
        return next(
            (one for one in self.gpus if f"{one.kind}-".startswith(f"{found.kind}-") and _is_of(one, size)), None
        )

    def gpu(self, name: str) -> Gpu:
        """As `find_gpu`; raises InputError with the nearest names."""
        found = self.find_gpu(name)
        if found is None:
            known = list(dict.fromkeys(gpu.kind for gpu in self.gpus))
            raise InputError(
                f"the catalog has no GPU {name!r}; {_nearest(name, known)}",
                next_step="`orch gpus` lists them; catalog/*.yaml in your project adds some",
            )
        return found

    def find_license(self, key: str) -> License | None:
        """By key, name or alias; None: unknown."""
        found = self._index(License).get(plain(key))
        return self._entry(License, found) if found else None

    def license(self, key: str) -> License:
        """As `find_license`; raises InputError with the nearest names."""
        found = self.find_license(key)
        if found is None:
            raise InputError(f"the catalog has no licence {key!r}; {_nearest(key, list(self._raw[License]))}")
        return found

    def gpu_prices(self, gpu: Gpu | str | None = None) -> list[GpuPrice]:
        """Of one GPU, or all; [] where no price is known."""
        wanted = None if gpu is None else (self.gpu(gpu) if isinstance(gpu, str) else gpu).id
        return [GpuPrice.model_validate(row) for row in self._gpu_prices if wanted in (None, row["gpu"])]

    def api_prices(self, model: str | None = None) -> list[ApiPrice]:
        """Of one hosted model, by its name or `vendor/name`, or all; [] where none is known."""
        prices = [ApiPrice.model_validate(row) for row in self._api_prices if _is_api(row, model)]
        return prices

    def _entry(self, kind: type[M], key: str) -> Any:
        if (kind, key) not in self._made:
            self._made[kind, key] = kind.model_validate(self._raw[kind][key])
        return self._made[kind, key]

    def _index(self, kind: type[Model]) -> dict[str, str]:
        """Normalised name -> id; the first that has a name keeps it, ids before aliases."""
        if kind not in self._names:
            found: dict[str, str] = {}
            for names in (_ids, _aliases, _shortened):
                for key, fields in self._raw[kind].items():
                    for name in names(key, fields):
                        found.setdefault(plain(name), key)
            self._names[kind] = found
        return self._names[kind]


def load(home: Path | None = None, directory: Path | None = None) -> Catalog:
    """The shipped catalog with the project's above `directory` (default: the current one) and that of `home`.

    Raises RecipeError with every problem of a user's file, at its line.
    """
    from orchestrator.catalog import own

    tables = shipped.tables()
    folders = [own.project_folder(directory or Path.cwd()), home / "catalog" if home else None]
    for path in own.files(folder for folder in folders if folder):
        tables = own.extended(tables, path)
    return Catalog(**tables)


def _ids(key: str, fields: dict[str, Any]) -> Iterable[str]:
    return [key, key.rsplit("/", 1)[-1]]


def _aliases(key: str, fields: dict[str, Any]) -> Iterable[str]:
    named = [fields[name] for name in ("kind", "name", "spdx") if fields.get(name)]
    aliases = fields.get("aliases") or []
    return [*named, *aliases, *(alias.rsplit("/", 1)[-1] for alias in aliases)]


def _shortened(key: str, fields: dict[str, Any]) -> Iterable[str]:
    return [without_variant(name) for name in (key, *(fields.get("aliases") or []))]


def _is_of(gpu: Gpu, size: int) -> bool:
    """Whether a GPU has about that memory: as sold, by GB or GiB, or as much of it as a tool sees."""
    return 0.95 * size < gpu.memory_nominal < 1.2 * size


def _is_api(row: dict[str, Any], model: str | None) -> bool:
    if model is None:
        return True
    return plain(model) in (plain(row["model"]), plain(f"{row['vendor']}/{row['model']}"))


def _nearest(name: str, known: list[str]) -> str:
    """`did you mean ...` among many names: the five nearest rather than all."""
    import difflib

    keys = {plain(key.rsplit("/", 1)[-1]): key for key in known}
    close = [
        keys[key] for key in difflib.get_close_matches(plain(name.rsplit("/", 1)[-1]), list(keys), n=5, cutoff=0.5)
    ]
    return f"nearest: {', '.join(close)}" if close else f"none of {len(known)} is near"
