"""The data stage: every row checked, the base model's chat template applied, only the assistant's turns marked.

`check_rows`, `find_leakage` and `check_files` need no heavy library: `orch run` calls them before anything starts, for
files that exist already. The template itself is applied by the worker program `tokenize`.

Leaves out: data types other than chat, near-duplicates (only exact ones count as leakage), streaming.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from orchestrator.config import Model
from orchestrator.errors import InputError
from orchestrator.stages.base import Context, Outputs, Resources

LIBRARIES = ("transformers", "tokenizers", "datasets")
WORKERS = ("tokenize",)
METRICS = (
    "train_rows",
    "test_rows",
    "truncated",
    "dropped",
    "untrained_turns",
    "tokens",
    "trained_tokens",
    "tokens_p50",
    "tokens_p95",
    "tokens_max",
    "leaked",
)
ROLES = ("system", "user", "assistant", "tool")
LISTED_ROWS = 5
SUFFIXES = (".jsonl", ".json", ".parquet")

Row = dict[str, Any]


class Config(Model):
    """How the data sets are read and cut."""

    sequence_len: int = Field(default=1024, ge=8)
    """Tokens after which a row is cut off."""
    allow_leakage: bool = False
    """Go on although test rows are in the training data, too."""


def estimate(config: Config) -> Resources:
    """One core: the tokenizer is quick."""
    return Resources(num_cpus=1)


def run(config: Config, context: Context) -> Outputs:
    """Check all rows, write them back as validated JSON lines, and tokenize them."""
    sources = context.inputs["prepare"].artifacts
    cache = context.directory / "cache"
    train = load_rows(sources["dataset.train"], "train", cache)
    test = load_rows(sources["dataset.test"], "test", cache) if "dataset.test" in sources else []
    leaked = check_leakage(train, test, allow=config.allow_leakage)
    rows = {"train": context.directory / "train_rows.jsonl", "test": context.directory / "test_rows.jsonl"}
    write_rows(rows["train"], train)
    write_rows(rows["test"], test)
    context.say(f"{len(train)} train rows, {len(test)} test rows, {len(leaked)} in both")
    result = context.worker(
        "tokenize",
        {
            "base_model": sources["base_model"],
            "rows": {name: str(path) for name, path in rows.items() if name == "train" or test},
            "sequence_len": config.sequence_len,
            "directory": str(context.directory),
        },
    )
    held_out = {"test_rows": str(rows["test"])} if test else {}
    artifacts = {**result["artifacts"], "train_rows": str(rows["train"]), **held_out}
    return Outputs(artifacts=artifacts, metrics={**result["metrics"], "leaked": len(leaked)}, report=result["report"])


def check_files(train: Path, test: Path | None, *, allow_leakage: bool = False) -> None:
    """Raises InputError for the first bad row of either file, for an empty file, and for leakage.

    A folder passes unread: only the datasets library, which is slow to load, knows its layout.
    """
    rows = [check_rows(path) if path and not path.is_dir() else [] for path in (train, test)]
    check_leakage(rows[0], rows[1], allow=allow_leakage)


def load_rows(source: str, split: str, cache: Path) -> list[Row]:
    """The checked rows of a file, or the `split` of a folder (such as a downloaded repository) or of a hub id."""
    path = Path(source)
    if path.is_dir() or not (path.exists() or path.is_absolute() or path.suffix in SUFFIXES):
        return checked(_read_repository(source, split, cache), f"{source} ({split})")
    return check_rows(path)


def check_rows(path: Path) -> list[Row]:
    """The rows of a .jsonl or .parquet file. Raises InputError that names the file and the first bad row (from 1)."""
    if not path.is_file():
        raise InputError(f"no data set file {path}", next_step="check the `path:` of the data set in the recipe")
    if path.suffix == ".parquet":
        return checked(_read_parquet(path), str(path))
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path}: a data set file is .jsonl or .parquet, found {path.suffix or 'no suffix'!r}")
    return checked(_read_jsonl(path), str(path))


def checked(rows: Iterator[Any], where: str) -> list[Row]:
    """All rows, each one valid chat; InputError for the first that is not, or when there is none."""
    found: list[Row] = []
    for number, row in enumerate(rows, start=1):
        problem = _problem(row)
        if problem is not None:
            raise InputError(f"{where}: row {number}: {problem}", next_step="mend or remove that row, then run again")
        found.append(row)
    if not found:
        raise InputError(f"{where}: the data set is empty; at least one row is needed")
    return found


def check_leakage(train: Sequence[Row], test: Sequence[Row], *, allow: bool) -> list[tuple[int, int]]:
    """The pairs that `find_leakage` finds; InputError when there are any and they are not allowed."""
    leaked = find_leakage(train, test)
    if leaked and not allow:
        pairs = ", ".join(f"test row {t} = train row {n}" for n, t in leaked[:LISTED_ROWS])
        more = f" and {len(leaked) - LISTED_ROWS} more" if len(leaked) > LISTED_ROWS else ""
        raise InputError(
            f"{len(leaked)} of {len(test)} test rows are also in the training data: {pairs}{more}",
            next_step="remove them from one side, or set `allow_leakage: true` if that is intended",
        )
    return leaked


def find_leakage(train: Sequence[Row], test: Sequence[Row]) -> list[tuple[int, int]]:
    """(train row, test row), numbered from 1, for every test row whose messages equal those of a train row."""
    known: dict[str, int] = {}
    for number, row in enumerate(train, start=1):
        known.setdefault(_identity(row), number)
    pairs = ((known.get(_identity(row)), number) for number, row in enumerate(test, start=1))
    return [(train_number, number) for train_number, number in pairs if train_number is not None]


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Rows as JSON lines."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _identity(row: Row) -> str:
    return json.dumps([(turn["role"], turn["content"]) for turn in row["messages"]])


def _problem(row: Any) -> str | None:
    """What is wrong with one row, or None."""
    if isinstance(row, _NotJson):
        return f"not JSON: {row.reason}"
    if not isinstance(row, dict):
        return f"a JSON object is needed, found {type(row).__name__}"
    if "messages" not in row:
        return f'no "messages"; found the keys {sorted(row)}'
    messages = row["messages"]
    if not isinstance(messages, list) or not messages:
        return '"messages" must be a list with at least one turn'
    for number, turn in enumerate(messages, start=1):
        problem = _turn_problem(turn, number)
        if problem is not None:
            return f"message {number}: {problem}"
    if messages[-1]["role"] != "assistant":
        return f"the last turn must be the assistant's, found {messages[-1]['role']!r}"
    if row.get("source") is not None and not isinstance(row["source"], str):
        return '"source" must be text'
    return None


def _turn_problem(turn: Any, number: int) -> str | None:
    if not isinstance(turn, dict):
        return f"an object with role and content is needed, found {type(turn).__name__}"
    if turn.get("role") not in ROLES:
        return f"role {turn.get('role')!r} is not one of {', '.join(ROLES)}"
    if turn["role"] == "system" and number > 1:
        return "a system turn can only be the first"
    content = turn.get("content")
    if not isinstance(content, str):
        return f'"content" must be text, found {type(content).__name__}'
    return None if content.strip() else '"content" is empty'


class _NotJson:
    """Stands for a line that could not be read, so that the row count stays right."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


def _read_jsonl(path: Path) -> Iterator[Any]:
    """One value per line; blank lines are tolerated at the end only."""
    blank = 0
    with path.open("rb") as file:
        for line in file:
            if not line.strip():
                blank += 1
                continue
            yield from [_NotJson("the line is empty")] * blank
            blank = 0
            try:
                yield json.loads(line)
            except ValueError as error:
                yield _NotJson(str(error))


def _read_parquet(path: Path) -> Iterator[Any]:
    import pyarrow
    import pyarrow.parquet

    try:
        yield from pyarrow.parquet.read_table(path).to_pylist()
    except pyarrow.ArrowInvalid as error:
        raise InputError(f"{path}: not a parquet file: {error}") from error


def _read_repository(source: str, split: str, cache: Path) -> Iterator[Any]:
    """A folder or hub id, laid out in any way that the datasets library knows."""
    import datasets
    from datasets.exceptions import DatasetGenerationError
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield from datasets.load_dataset(source, split=split, cache_dir=str(cache))
    except (FileNotFoundError, ValueError, HfHubHTTPError, ConnectionError, DatasetGenerationError) as error:
        raise InputError(
            f"cannot read the {split!r} split of the data set {source!r}: {error}",
            next_step="check the name, that it has this split, the network, and HF_TOKEN for a private one",
        ) from error
