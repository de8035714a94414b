"""Commands about what is known: models, gpus, prices."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from orchestrator.cli.app import app, home

Search = Annotated[list[str] | None, typer.Argument(metavar="[SEARCH]...", help="Words that all must be in a row.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, in bytes, bytes/s and FLOP/s.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="Print CSV, in bytes, bytes/s and FLOP/s.")]
Sources = Annotated[bool, typer.Option("--sources", help="Say under each row where it was read, and when.")]


class _OrList(TyperGroup):
    """`orch models qwen` is `orch models list qwen`: a first word that is no command is searched for."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        known = [*self.commands, *ctx.help_option_names]
        return super().parse_args(ctx, args if args and args[0] in known else ["list", *args])


_HELP = "Models that the catalog knows: size, attention, KV cache, licence. `orch models qwen3 moe` searches."
models = typer.Typer(cls=_OrList, help=_HELP)
app.add_typer(models, name="models")


@models.command("list")
def list_(search: Search = None, as_json: AsJson = False, as_csv: AsCsv = False, sources: Sources = False) -> None:
    """List models; it may be left out."""
    from orchestrator.cli import catalog_show as show

    rows = show.found(show.model_rows(_catalog()), search)
    show.output(rows, show.MODELS, "models", as_json=as_json, as_csv=as_csv, sources=sources)


@models.command()
def fit(
    search: Search = None,
    gpu: Annotated[str, typer.Option("--gpu", help="Kind, id or name, such as RTX-4090.")] = "H100",
    task: Annotated[str, typer.Option("--task", help="qlora, lora, dora or full.")] = "qlora",
    sequence_len: Annotated[int, typer.Option("--sequence-len", min=1, help="Tokens of the longest row.")] = 4096,
    micro_batch_size: Annotated[int, typer.Option("--micro-batch-size", min=1, help="Rows at once.")] = 1,
    lora_r: Annotated[int, typer.Option("--lora-r", min=1, help="Rank of the adapters.")] = 16,
    checkpointing: Annotated[str, typer.Option("--checkpointing", help="none, selective or full.")] = "full",
    optimizer: Annotated[
        str, typer.Option("--optimizer", help="As the Hugging Face Trainer names it.")
    ] = "adamw_torch",
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Say for every model whether its fine-tune fits one GPU, as predicted; nothing was measured here."""
    from orchestrator.cli import catalog_fit

    catalog_fit.show(
        _catalog(), search, gpu, as_json=as_json, as_csv=as_csv, method=task, sequence_len=sequence_len,
        micro_batch_size=micro_batch_size, lora_r=lora_r, checkpointing=checkpointing, optimizer=optimizer,
    )  # fmt: skip


@app.command()
def gpus(search: Search = None, as_json: AsJson = False, as_csv: AsCsv = False, sources: Sources = False) -> None:
    """List GPUs that the catalog knows: memory, speed by type, links and prices."""
    from orchestrator.cli import catalog_show as show

    rows = show.found(show.gpu_rows(_catalog()), search)
    show.output(rows, show.GPUS, "GPUs", as_json=as_json, as_csv=as_csv, sources=sources)


@app.command()
def prices(
    search: Search = None,
    gpu: Annotated[str | None, typer.Option("--gpu", help="Only of this GPU.")] = None,
    term: Annotated[str | None, typer.Option("--term", help="on-demand, spot, reserved-1y, marketplace.")] = None,
    api: Annotated[bool, typer.Option("--api", help="Prices of hosted models instead.")] = False,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    sources: Sources = False,
) -> None:
    """List prices of GPUs by the hour, or of hosted models by the million tokens."""
    from orchestrator.cli import catalog_show as show

    catalog = _catalog()
    rows = show.api_rows(catalog) if api else show.price_rows(catalog, gpu, term)
    columns = show.API if api else show.PRICES
    show.output(show.found(rows, search), columns, "prices", as_json=as_json, as_csv=as_csv, sources=sources)


def _catalog() -> Any:
    from orchestrator.catalog.catalog import load

    return load(home())
