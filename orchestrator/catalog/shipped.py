"""The files of the catalog that come with the program, read once, not yet validated."""

import csv
from functools import cache
from pathlib import Path
from typing import Any, TypedDict

import yaml

FOLDER = Path(__file__).parent
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in C reads ten times as fast

Row = dict[str, Any]


class Tables(TypedDict):
    """Raw entries by id, and raw rows."""

    models: dict[str, Row]
    gpus: dict[str, Row]
    licenses: dict[str, Row]
    gpu_prices: list[Row]
    api_prices: list[Row]


@cache
def tables() -> Tables:
    """All of them; not to be changed by the caller."""
    return Tables(
        models=_entries("models"),
        gpus=_entries("gpus"),
        licenses=_entries("licenses"),
        gpu_prices=_rows("gpu_prices"),
        api_prices=_rows("api_prices"),
    )


def _entries(name: str) -> dict[str, Row]:
    """Id -> fields; the date of the file is the date of each entry."""
    with (FOLDER / f"{name}.yaml").open(encoding="utf-8") as file:
        data = yaml.load(file, _Loader)
    return {entry["id"]: {"date": data["date"], **entry} for entry in data[name]}


def _rows(name: str) -> list[Row]:
    """Rows of a table, without the empty cells."""
    with (FOLDER / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return [{key: value for key, value in row.items() if value} for row in csv.DictReader(file)]
