"""What `orch models fit` prints: every model with the memory that its fine-tune needs on one GPU."""

from typing import Any

from pydantic import ValidationError
from rich.text import Text

from orchestrator.catalog.catalog import Catalog
from orchestrator.cli import catalog_show
from orchestrator.cli.catalog_show import GIB, Column, Row
from orchestrator.errors import InputError
from orchestrator.planner.fits import ORDER, fits
from orchestrator.planner.training.finetune import FineTune


def show(catalog: Catalog, search: list[str] | None, gpu: str, *, as_json: bool, as_csv: bool, **tune: Any) -> None:
    """Print the verdicts. Raises InputError for an unknown GPU or an option that a fine-tune does not have."""
    card = catalog.gpu(gpu)
    try:
        wanted = FineTune(**tune)
    except ValidationError as error:
        raise InputError("\n".join(_problem(detail) for detail in error.errors())) from error
    chosen = {row["id"] for row in catalog_show.found(catalog_show.model_rows(catalog), search)}
    found = fits([model for model in catalog.models if model.id in chosen], wanted, card)
    rows = [one.model_dump(mode="json") for one in found]
    if as_json or as_csv:
        catalog_show.output(rows, _COLUMNS, "models", as_json=as_json, as_csv=as_csv, sources=False)
        return
    out = catalog_show.console()
    out.print(Text(_title(wanted, card.name, card.memory_visible), style="bold"))
    out.print(catalog_show.table(rows, _COLUMNS, out.width))
    counts = {verdict: sum(row["verdict"] == verdict for row in rows) for verdict in ORDER}
    words = {"fits": "fit", "does not fit": "do not fit"}
    said = ", ".join(f"{count} {words.get(verdict, verdict)}" for verdict, count in counts.items() if count)
    out.print(Text(f"\n{said}", style="dim"))
    out.print(Text("predicted, not measured; tight: only the upper end of the interval does not fit", style="dim"))


def _title(tune: FineTune, gpu: str, visible: float) -> str:
    rank = "" if tune.method == "full" else f", rank {tune.lora_r}"
    rows = f"{tune.micro_batch_size} x {tune.sequence_len:,} tokens"
    return f"{tune.method}{rank}, {rows}, checkpointing {tune.checkpointing}, on 1x {gpu}: {visible / GIB:.1f} GiB"


def _problem(detail: Any) -> str:
    option = {"method": "task"}.get(str(detail["loc"][0]), str(detail["loc"][0])).replace("_", "-")
    return f"--{option}: {detail['msg'][0].lower()}{detail['msg'][1:]}, found {detail['input']!r}"


def _needs(row: Row) -> str:
    if row["needed"] is not None:
        return f"{row['needed'] / GIB:.1f}"
    return f"> {row['low'] / GIB:.1f}" if row["low"] else "unknown"


def _interval(row: Row) -> str:
    return f"{row['low'] / GIB:.1f}-{row['high'] / GIB:.1f}" if row["needed"] is not None else ""


_COLUMNS = [
    Column("model", lambda row: catalog_show.name(row["model"], row["width"])),
    Column("parameters", lambda row: catalog_show.billions(row["parameters"]) or "unknown", number=True),
    Column("needs GiB", _needs, number=True),
    Column("90 % interval", _interval, 96, number=True),
    Column("has GiB", lambda row: f"{row['visible'] / GIB:.1f}", number=True),
    Column("", lambda row: row["verdict"]),
    Column("why", lambda row: row["reason"] or "", 140, wraps=True),
]
