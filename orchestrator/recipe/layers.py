"""Layers of a recipe: user file < project file < extended blocks < the recipe < the command line; later wins.

Mappings are merged key by key, lists are replaced. The user's and the project's `orch.yaml` only fill in sections that
the recipe has: a default for `train` must not give a training stage to a recipe that only benchmarks.
"""

from pathlib import Path
from typing import Any

from orchestrator.documents import Document, Key, Origin, Problem, read, scalar
from orchestrator.errors import InputError

DEFAULTS_FILE = "orch.yaml"

# Spellings of other tools -> ours, by section
ALIASES: dict[str, dict[str, str]] = {
    "": {"model_name_or_path": "base_model", "model": "base_model"},
    "train": {
        "num_train_epochs": "num_epochs",
        "max_length": "sequence_len",
        "max_seq_length": "sequence_len",
        "cutoff_len": "sequence_len",
        "r": "lora_r",
        "lora_rank": "lora_r",
        "per_device_train_batch_size": "micro_batch_size",
        "target_modules": "lora_target_modules",
        "modules_to_save": "lora_modules_to_save",
        "use_rslora": "peft_use_rslora",
        "init_lora_weights": "peft_init_lora_weights",
        "lr": "learning_rate",
        "packing": "sample_packing",
        "warmup": "warmup_steps",
        "lr_scheduler_type": "lr_scheduler",
        "gradient_accumulation": "gradient_accumulation_steps",
    },
}


def layered(path: Path, overrides: list[str], home: Path) -> Document:
    """The recipe file with everything below and above it, as one document."""
    recipe = _with_blocks(path, ())
    sections = set(recipe.data)
    merged = Document({})
    for defaults in _defaults(path, home):
        _merge(merged, _only(defaults, sections))
    _merge(merged, recipe)
    for text in overrides:
        _override(merged, text)
    return merged


def _with_blocks(path: Path, seen: tuple[Path, ...]) -> Document:
    if path.resolve() in seen:
        raise InputError(f"{path} extends itself, by way of {' -> '.join(p.name for p in seen)}")
    document = _canonical(read(path))
    blocks = document.data.pop("extends", [])
    merged = Document({})
    if not isinstance(blocks, list) or not all(isinstance(block, str) for block in blocks):
        document.problems.append(Problem(document.origins[("extends",)], "extends: a list of files is needed"))
        blocks = []
    for block in blocks:
        _merge(merged, _with_blocks(path.parent / block, (*seen, path.resolve())))
    _merge(merged, document)
    return merged


def _defaults(path: Path, home: Path) -> list[Document]:
    folders = [folder for folder in path.resolve().parents if (folder / DEFAULTS_FILE).is_file()]
    files = [home / DEFAULTS_FILE] + [folder / DEFAULTS_FILE for folder in folders[:1]]
    return [_canonical(read(file)) for file in files if file.is_file()]


def _only(document: Document, sections: set[str]) -> Document:
    data = {name: value for name, value in document.data.items() if name in sections}
    origins = {key: origin for key, origin in document.origins.items() if key and key[0] in data}
    return Document(data, origins, document.problems)


def _canonical(document: Document) -> Document:
    """The document with other tools' spellings replaced by ours; both spellings at once is a problem."""
    for section, names in ALIASES.items():
        holder = document.data.get(section) if section else document.data
        prefix: Key = (section,) if section else ()
        if not isinstance(holder, dict):
            continue
        for alias, name in names.items():
            if alias in holder and name in holder:
                origin = document.origins[(*prefix, alias)]
                document.problems.append(
                    Problem(origin, f"{alias!r} is another spelling of {name!r}, which is set too")
                )
                del holder[alias]
            elif alias in holder:
                holder[name] = holder.pop(alias)
                document.origins = {_renamed(k, (*prefix, alias), name): o for k, o in document.origins.items()}
    return document


def _renamed(key: Key, old: Key, name: str) -> Key:
    return (*old[:-1], name, *key[len(old) :]) if key[: len(old)] == old else key


def _merge(below: Document, above: Document) -> None:
    below.problems.extend(above.problems)
    _merge_values(below, below.data, above, above.data, ())


def _merge_values(below: Document, target: dict[str, Any], above: Document, source: dict[str, Any], key: Key) -> None:
    for name, value in source.items():
        here = (*key, name)
        if isinstance(value, dict) and isinstance(target.get(name), dict):
            below.origins[here] = above.origins[here]
            _merge_values(below, target[name], above, value, here)
        else:
            target[name] = value
            _replace_origins(below, above, here)


def _replace_origins(below: Document, above: Document, key: Key) -> None:
    below.origins = {found: origin for found, origin in below.origins.items() if found[: len(key)] != key}
    below.origins |= {found: origin for found, origin in above.origins.items() if found[: len(key)] == key}


def _override(document: Document, text: str) -> None:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise InputError(f"override {text!r}: write it as key=value, such as train.learning_rate=1e-4")
    key: Key = tuple(int(part) if part.isdigit() else part for part in name.split("."))
    section = str(key[0]) if len(key) > 1 else ""
    key = (*key[:-1], ALIASES.get(section, {}).get(str(key[-1]), key[-1]))
    _set(document.data, key, scalar(value), text)
    origin = Origin(f"command line ({text})")
    document.origins = {found: o for found, o in document.origins.items() if found[: len(key)] != key}
    for length in range(1, len(key)):
        document.origins.setdefault(key[:length], origin)
    document.origins[key] = origin


def _set(data: Any, key: Key, value: Any, text: str) -> None:
    for part in key[:-1]:
        if isinstance(data, dict):
            data = data.setdefault(str(part), {})
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
        else:
            raise InputError(f"override {text!r}: there is no {part!r} to set something in")
    last = key[-1]
    if isinstance(data, dict):
        data[str(last)] = value
    elif isinstance(data, list) and isinstance(last, int) and last < len(data):
        data[last] = value
    else:
        raise InputError(f"override {text!r}: there is no {last!r} to set")
