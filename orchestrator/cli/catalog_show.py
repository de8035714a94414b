"""What `orch models`, `orch gpus` and `orch prices` print: tables that fit the terminal; as JSON or CSV, everything."""

import csv
import json
import sys
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from rich.console import Console, JustifyMethod, OverflowMethod
from rich.table import Table
from rich.text import Text

from orchestrator.catalog.catalog import Catalog
from orchestrator.catalog.gpus import Gpu
from orchestrator.catalog.kv_cache import bytes_per_token
from orchestrator.catalog.models import ModelFacts
from orchestrator.catalog.names import plain
from orchestrator.catalog.parameters import Parameters, parameters
from orchestrator.catalog.prices import TERMS, GpuPrice
from orchestrator.errors import InputError
from orchestrator.plugins import nearest

Row = dict[str, Any]
FEW = 4
"""So many rows say where they were read without being asked."""
GIB = 2**30


class Column(NamedTuple):
    """One column of a table: how a row's value is written, and the terminal's width from which it is shown."""

    title: str
    text: Callable[[Row], str]
    width: int = 0
    number: bool = False
    wraps: bool = False
    """A sentence, which goes on in the next line rather than be cut."""


def found(rows: Iterable[Row], words: list[str] | None) -> list[Row]:
    """The rows in which every word is found, whatever its case."""
    wanted = [word.lower() for word in words or []]
    return [row for row in rows if all(word in _searched(row) for word in wanted)]


def output(rows: list[Row], columns: list[Column], what: str, *, as_json: bool, as_csv: bool, sources: bool) -> None:
    """Print the rows. Raises InputError where there is none."""
    if as_json:
        print(json.dumps(rows, indent=2))
    elif as_csv:
        _write_csv(rows)
    elif not rows:
        raise InputError(f"the catalog has no such {what}", next_step="search with fewer words, or none")
    else:
        out = console()
        out.print(table(rows, columns, out.width))
        for row in rows if sources or len(rows) <= FEW else []:
            out.print(Text(f"\n{_provenance(row)}", style="dim"))
        out.print(Text(f"\n{_remark(rows, what)}", style="dim"))


def console() -> Console:
    """Where tables go; wide enough for a pipe to keep whole lines."""
    here = Console(highlight=False)
    return here if here.is_terminal else Console(highlight=False, width=160)


def table(rows: list[Row], columns: list[Column], width: int) -> Table:
    """The columns that the width has room for; a name that is too long goes on in the next line."""
    made = Table(box=None, padding=(0, 2 if width >= 100 else 1, 0, 0))
    shown = [column for column in columns if width >= column.width]
    for column in shown:
        side: JustifyMethod = "right" if column.number else "left"
        wraps = column.wraps or column is shown[0]
        cut: OverflowMethod = "fold" if wraps else "ellipsis"
        made.add_column(column.title, justify=side, no_wrap=not wraps, overflow=cut)
    for row in rows:
        made.add_row(*(Text(column.text(row | {"width": width})) for column in shown))
    return made


def name(model: str, width: int) -> str:
    """A model's id; without its owner where there is little room."""
    return model if width >= 120 else model.rsplit("/", 1)[-1]


def billions(amount: float | None) -> str:
    """`8.03B`, `494M`; empty: not known."""
    if amount is None:
        return ""
    return f"{amount / 1e9:.4g}B" if amount >= 999.5e6 else f"{amount / 1e6:.3g}M"


def model_rows(catalog: Catalog) -> list[Row]:
    """Every model with its counted size and KV cache."""
    return [_model(model) for model in catalog.models]


def gpu_rows(catalog: Catalog) -> list[Row]:
    """Every GPU with the span of its on-demand prices."""
    prices = catalog.gpu_prices()
    return [_gpu(gpu, [price for price in prices if price.gpu == gpu.id]) for gpu in catalog.gpus]


def price_rows(catalog: Catalog, gpu: str | None, term: str | None) -> list[Row]:
    """Prices of GPUs, the cheapest of each term first. Raises InputError for a term or a GPU that is not known."""
    if term is not None and term not in TERMS:
        raise InputError(f"no term {term!r}; {nearest(term, list(TERMS))}")
    order = {one.id: number for number, one in enumerate(catalog.gpus)}
    wanted = order.keys() if gpu is None else {one.id for one in _meant(catalog, gpu)}
    prices = [price for price in catalog.gpu_prices() if price.gpu in wanted and term in (None, price.term)]
    prices.sort(key=lambda price: (order[price.gpu], TERMS.index(price.term), price.usd_per_gpu_hour))
    return [price.model_dump(mode="json") for price in prices]


def api_rows(catalog: Catalog) -> list[Row]:
    """Prices of hosted models."""
    return [price.model_dump(mode="json") for price in catalog.api_prices()]


def _meant(catalog: Catalog, gpu: str) -> list[Gpu]:
    """All parts of a kind, such as H100, or the one that is named exactly."""
    found = catalog.gpu(gpu)
    return [one for one in catalog.gpus if one.kind == found.kind] if plain(gpu) == plain(found.kind) else [found]


def _model(model: ModelFacts) -> Row:
    counted = parameters(model)
    known = isinstance(counted, Parameters)
    return {
        "id": model.id,
        "family": model.family,
        "parameters": counted.total if isinstance(counted, Parameters) else None,
        "active_parameters": counted.active if isinstance(counted, Parameters) else None,
        "published_parameters": model.published_parameters,
        "layers": model.layers,
        "hidden_size": model.hidden_size,
        "attention": [f"{one.layers} {one.kind}" for one in model.attention],
        "experts": f"{model.experts.active} of {model.experts.routed}" if model.experts else None,
        "kv_bytes_per_token": bytes_per_token(model) if model.attention else None,
        "max_context": model.max_context,
        "multimodal": model.multimodal,
        "native_dtype": model.native_dtype,
        "license": model.license,
        "base_licenses": model.base_licenses,
        "unknown": None if known else counted.reason,  # type: ignore[union-attr]
        "notes": model.notes,
        "source": model.source,
        "date": model.date,
        "verified": model.verified,
        "aliases": model.aliases,
    }


def _gpu(gpu: Gpu, prices: list[GpuPrice]) -> Row:
    asked = sorted(price.usd_per_gpu_hour for price in prices if price.term == "on-demand")
    row = gpu.model_dump(mode="json") | {"memory_nominal": int(gpu.memory_nominal)}
    row["memory_visible"] = int(gpu.memory_visible)
    return row | {"usd_per_hour_low": asked[0] if asked else None, "usd_per_hour_high": asked[-1] if asked else None}


def _size(row: Row) -> str:
    """Counted; in brackets as published, where the dimensions are unknown."""
    counted, published = row["parameters"], row["published_parameters"]
    return billions(counted) if counted else f"({billions(published)})" if published else "unknown"


def _active(row: Row) -> str:
    return billions(row["active_parameters"]) if row["experts"] else ""


def _context(row: Row) -> str:
    tokens = row["max_context"]
    if tokens is None or tokens % 1024:
        return "" if tokens is None else f"{tokens:,}"
    return f"{tokens // 2**20}M" if tokens % 2**20 == 0 else f"{tokens // 1024}k"


def _license(row: Row) -> str:
    """Its own, and those that it inherits."""
    return " + ".join([row["license"] or "unknown", *(key for key in row["base_licenses"] if key != row["license"])])


def _kv(row: Row) -> str:
    return f"{row['kv_bytes_per_token'] / 1024:.4g} KiB" if row["kv_bytes_per_token"] else "unknown"


def _tera(amount: float | None) -> str:
    return f"{amount / 1e12:.3g}" if amount else ""


def _flops(name: str) -> Callable[[Row], str]:
    return lambda row: f"{row['flops'][name] / 1e12:.0f}" if row["flops"].get(name) else ""


def _asked(row: Row) -> str:
    low, high = row["usd_per_hour_low"], row["usd_per_hour_high"]
    return "unknown" if low is None else f"{low:.2f}" if low == high else f"{low:.2f}-{high:.2f}"


def _money(name: str) -> Callable[[Row], str]:
    return lambda row: "" if row[name] is None else f"{row[name]:.6g}"


def _applies(row: Row) -> str:
    """The tier where it is not the standard one, and the days where they are bounded."""
    tier = "" if row["tier"] == "standard" else row["tier"].removeprefix("long-context ")
    since = f"from {row['valid_from']}" if row["valid_from"] else ""
    until = f"to {row['valid_to']}" if row["valid_to"] else ""
    return " ".join(word for word in (tier, since, until) if word)


def _verified(row: Row) -> str:
    return "yes" if row["verified"] else "no"


MODELS = [
    Column("model", lambda row: name(row["id"], row["width"])),
    Column("parameters", _size, number=True),
    Column("active", _active, 88, number=True),
    Column("KV/token", _kv, number=True),
    Column("context", _context, 108, number=True),
    Column("licence", _license),
    Column("attention", lambda row: ", ".join(row["attention"]) or "unknown", 124),
    Column("experts", lambda row: row["experts"] or "", 140),
    Column("verified", _verified, 110),
]
GPUS = [
    Column("GPU", lambda row: row["id"]),
    Column("kind", lambda row: row["kind"], 100),
    Column("GiB", lambda row: f"{row['memory_visible'] / GIB:.1f}", number=True),
    Column("TB/s", lambda row: _tera(row["bandwidth"]) or "unknown", number=True),
    Column("bf16", _flops("bf16"), number=True),
    Column("fp8", _flops("fp8"), number=True),
    Column("fp4", _flops("fp4"), 90, number=True),
    Column("int8", _flops("int8"), 110, number=True),
    Column(
        "link GB/s", lambda row: f"{row['link_bandwidth'] / 1e9:.0f}" if row["link_bandwidth"] else "", 120, number=True
    ),
    Column("$/h on demand", _asked, number=True),
    Column("verified", _verified, 110),
]
PRICES = [
    Column("GPU", lambda row: row["gpu"]),
    Column("$/GPU-hour", lambda row: f"{row['usd_per_gpu_hour']:.2f}", number=True),
    Column("term", lambda row: row["term"]),
    Column("provider", lambda row: row["provider"]),
    Column("date", lambda row: row["date"]),
    Column("evidence", lambda row: row["evidence"], 100),
    Column("source", lambda row: row["source"], 150),
]
API = [
    Column("vendor", lambda row: row["vendor"]),
    Column("model", lambda row: row["model"]),
    Column("input", _money("input_usd_per_million"), number=True),
    Column("output", _money("output_usd_per_million"), number=True),
    Column("cached", _money("cached_usd_per_million"), number=True),
    Column("for", _applies),
    Column("seen", lambda row: row["observed"], 110),
    Column("evidence", lambda row: row["evidence"], 130),
    Column("source", lambda row: row["source"], 150),
]


def _searched(row: Row) -> str:
    return json.dumps(row, ensure_ascii=False).lower()


def _provenance(row: Row) -> str:
    """`h100-sxm: read in ... (2026-11-23)`, with what to mind."""
    name = row.get("id") or " ".join(str(row[part]) for part in ("vendor", "gpu", "provider", "model") if row.get(part))
    source = f"{row['source']} ({row.get('date') or row.get('observed')})"
    graded = "" if row.get("verified", True) else "; not verified"
    reason = f"\n  {row['unknown']}" if row.get("unknown") else ""
    return f"{name}: {source}{graded}{reason}" + (f"\n  {row['notes']}" if row.get("notes") else "")


def _remark(rows: list[Row], what: str) -> str:
    """How many, how old, what the figures are, and where their sources are."""
    words = {
        "models": "KV per token in 16 bit, of the layers that grow without limit; (sizes) as published, not counted",
        "GPUs": "GiB as a framework sees it; dense TFLOP/s; prices of one GPU from the lowest to the highest",
        "prices": "USD, as asked; taxes and egress are not in them",
    }
    dates = sorted({str(row.get("date") or row.get("observed")) for row in rows})
    span = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    more = "" if len(rows) <= FEW else "; --sources says where each was read"
    count = f"{len(rows)} {what if len(rows) > 1 else what.removesuffix('s')}"
    return f"{count}, read {span}. {words[what]}{more}."


def _write_csv(rows: list[Row]) -> None:
    if rows:
        writer = csv.DictWriter(sys.stdout, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        return "; ".join(map(str, value))
    return "; ".join(f"{name} {amount:g}" for name, amount in value.items()) if isinstance(value, dict) else value
