"""Commands about money: cost RECIPE, cost compare, cost claims, cost assumptions."""

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.app import app, home
from orchestrator.cli.topic import OrRecipe

cost = typer.Typer(
    cls=OrRecipe,
    help="What a run costs by provider and term (`orch cost RECIPE`), and whether self-hosting is worth it.",
    no_args_is_help=True,
)
app.add_typer(cost, name="cost")

Recipe = Annotated[Path, typer.Argument(metavar="RECIPE", help="The recipe's YAML file.")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Overrides, as of `orch plan`.")]
ClusterFile = Annotated[
    Path | None, typer.Option("-c", "--cluster", help="A cluster, or its file; default: this machine.")
]
OptionalRecipe = Annotated[
    Path | None, typer.Argument(metavar="[RECIPE]", help="Its model, GPUs and target are what is self-hosted.")
]
Tokens = Annotated[str, typer.Option("--tokens-per-month", help="Input and output of an average month, such as 1.5B.")]
InputShare = Annotated[
    str | None, typer.Option("--input-share", help="Input tokens over all tokens, such as 0.75 or 75%; needed.")
]
Versus = Annotated[str, typer.Option("--versus", help="The hosted model, such as gpt-4o or anthropic/claude-sonnet-5.")]
Tier = Annotated[str, typer.Option("--tier", help="Of the hosted model's price: standard, long-context, peak ...")]
ModelName = Annotated[str | None, typer.Option("--model", help="The self-hosted model; default: the recipe's.")]
GpuName = Annotated[str | None, typer.Option("--gpu", help="Its GPU, such as H100; default: the recipe's first.")]
PerReplica = Annotated[int | None, typer.Option("--gpus-per-replica", min=1, help="GPUs of one replica.")]
Replicas = Annotated[int | None, typer.Option("--replicas", min=1, help="Replicas that share the load, at least.")]
Throughput = Annotated[
    float | None,
    typer.Option(
        "--tokens-per-second-per-replica", help="Measured, input and output together; default: predicted, else unknown."
    ),
]
Engine = Annotated[
    str | None, typer.Option("--engine", help="Of the self-hosted model; default: the recipe's, or vllm.")
]
Quantization = Annotated[
    str | None, typer.Option("--quantization", help="Of its weights, such as fp8; default: the recipe's, or bf16.")
]
RequestTokens = Annotated[
    int, typer.Option("--request-tokens", min=2, help="Input and output of a request, for a predicted throughput.")
]
MaxTtft = Annotated[str, typer.Option("--max-ttft", help="Longest mean time to the first token that is accepted.")]
MaxTpot = Annotated[str, typer.Option("--max-tpot", help="Longest mean time per output token that is accepted.")]
Provider = Annotated[str | None, typer.Option("--provider", help="Of the GPUs; default: the median of the market.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="An assumption, such as staff.run_fte=0.3.")
]
File = Annotated[
    Path | None, typer.Option("--assumptions", help="YAML file of assumptions, such as staff: {run_fte: 1}.")
]
On = Annotated[str | None, typer.Option("--on", help="Day whose prices hold, YYYY-MM-DD; default: today.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Csv = Annotated[str | None, typer.Option("--csv", metavar="PATH", help="Write a table for a spreadsheet; - prints it.")]
Plot = Annotated[bool, typer.Option("--plot/--no-plot", help="Draw the monthly cost over tokens per month.")]
Claims = Annotated[
    Path | None, typer.Argument(metavar="[FILE]", help="YAML file of claims; default: those of a trade article.")
]


@cost.command()
def compare(
    recipe: OptionalRecipe = None,
    *,
    tokens_per_month: Tokens,
    versus: Versus,
    input_share: InputShare = None,
    tier: Tier = "standard",
    model: ModelName = None,
    gpu: GpuName = None,
    gpus_per_replica: PerReplica = None,
    replicas: Replicas = None,
    throughput: Throughput = None,
    provider: Provider = None,
    engine: Engine = None,
    quantization: Quantization = None,
    request_tokens: RequestTokens = 2000,
    max_ttft: MaxTtft = "2s",
    max_tpot: MaxTpot = "50ms",
    settings: Set = None,
    assumptions: File = None,
    on: On = None,
    as_json: AsJson = False,
    csv: Csv = None,
    plot: Plot = True,
) -> None:
    """Compare self-hosting with a hosted API and with a hybrid of both: bills, break-even, sensitivity."""
    from orchestrator.cli import cost_options, cost_show

    given = cost_options.Given(
        recipe=recipe,
        model=model,
        gpu=gpu,
        gpus_per_replica=gpus_per_replica,
        replicas=replicas,
        tokens_per_s_per_replica=throughput,
        provider=provider,
        engine=engine,
        quantization=quantization,
        request_tokens=request_tokens,
        max_ttft=max_ttft,
        max_tpot=max_tpot,
        tokens_per_month=tokens_per_month,
        input_share=input_share,
        versus=versus,
        tier=tier,
        settings=settings or [],
        assumptions=assumptions,
        on=on,
    )
    found = cost_options.comparison(given, home())
    if csv:
        cost_show.write_csv(found, csv)
    if as_json:
        print(found.model_dump_json(indent=2))
    elif csv != "-":
        cost_show.comparison(found, plot=plot)


@cost.command()
def run(recipe: Recipe, overrides: Overrides = None, cluster: ClusterFile = None, as_json: AsJson = False) -> None:
    """Show what a run of a recipe costs at each provider, on demand, on spot and reserved; `run` may be left out."""
    from orchestrator.cli import cost_run

    cost_run.show(recipe, overrides or [], cluster, home(), as_json=as_json)


@cost.command()
def claims(file: Claims = None, as_json: AsJson = False) -> None:
    """Check the arithmetic of published claims about cost with the catalog's prices and this program's formulas."""
    from orchestrator.cli import cost_claims

    cost_claims.show(file, home(), as_json=as_json)


@cost.command()
def assumptions(as_json: AsJson = False) -> None:
    """List every assumption of `orch cost compare`: value, range, unit, source and date."""
    from orchestrator.cli import cost_show

    cost_show.listing(as_json=as_json)
