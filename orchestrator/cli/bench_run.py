"""The command `orch bench run` and its options."""

from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.cli.app import home
from orchestrator.cli.bench import bench

_LOAD, _ASKED, _AFTER = "What load", "What is asked", "What becomes of the result"


def _option(*names: str, help: str, panel: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, **more)


Targets = Annotated[
    list[str],
    typer.Argument(
        metavar="TARGET...", help="URLs of OpenAI-compatible servers, or a recipe with a `benchmark` section."
    ),
]
Model = Annotated[str | None, typer.Option("--model", help="Model to ask for; default: the server's only one.")]
ApiKey = Annotated[
    str | None, typer.Option("--api-key", envvar="OPENAI_API_KEY", show_default=False, help="Sent as a bearer token.")
]
Header = Annotated[
    list[str] | None, typer.Option("--header", help='Sent with every request: "api-key: ..."; may be repeated.')
]
Concurrency = Annotated[
    str | None, _option("-c", "--concurrency", help="Streams at the same time; default: 1,8,32.", panel=_LOAD)
]
Rate = Annotated[
    str | None, _option("--rate", help="Requests/s that arrive whatever the server does: 2,4.", panel=_LOAD)
]
Sweep = Annotated[
    str | None,
    _option("--sweep", metavar="auto", help="Find the knee, and the highest rate that keeps --slo.", panel=_LOAD),
]
Limits = Annotated[str | None, _option("--slo", help="For goodput: ttft=500ms,tpot=50ms[,share=99%].", panel=_LOAD)]
Duration = Annotated[str | None, _option("--duration", help="Of each cell, such as 60s.", panel=_LOAD)]
Requests = Annotated[int | None, _option("--requests", help="Of each cell.", panel=_LOAD, min=1)]
Warmup = Annotated[
    str | None,
    _option("--warmup", help="Not measured, before each cell: requests, or 5s where rates are given.", panel=_LOAD),
]
Workers = Annotated[int | None, _option("--workers", help="Client processes; default: 1.", panel=_LOAD, min=1)]
Timeout = Annotated[
    str | None, _option("--timeout", help="After which a request has failed; default: 300s.", panel=_LOAD)
]
InputTokens = Annotated[
    str | None,
    _option(
        "--input-tokens", help="Of made-up prompts: 512, 100-500, lognormal:400,0.8, file:lengths.txt.", panel=_ASKED
    ),
]
OutputTokens = Annotated[str | None, _option("--output-tokens", help="Of answers, in the same way.", panel=_ASKED)]
Prompts = Annotated[
    str | None, _option("--prompts", help="File of own prompts: chats as JSON lines, or text.", panel=_ASKED)
]
Trace = Annotated[
    str | None, _option("--trace", help="Recorded arrivals and lengths: Azure's or Mooncake's.", panel=_ASKED)
]
TraceSpeed = Annotated[str | None, _option("--trace-speed", help="Replay so many times quicker.", panel=_ASKED)]
SharedPrefix = Annotated[
    str | None, _option("--shared-prefix", help="Common beginnings: 1000, 1000:80%, 1000x4:80%.", panel=_ASKED)
]
Turns = Annotated[str | None, _option("--turns", help="Of conversations: 4 or 2-6.", panel=_ASKED)]
MaxTokens = Annotated[
    int | None, _option("--max-tokens", help="Longest answer to own prompts; default: 128.", panel=_ASKED, min=1)
]
Temperature = Annotated[
    float | None, _option("--temperature", help="Default: 0, greedy decoding.", panel=_ASKED, min=0)
]
Seed = Annotated[int | None, _option("--seed", help="Of prompts, arrivals and order; default: 17.", panel=_ASKED)]
UsdPerHour = Annotated[
    float | None, _option("--usd-per-hour", help="Price of the server's hardware.", panel=_AFTER, min=0)
]
Name = Annotated[str | None, _option("--name", help="Of the result; default: the server's host.", panel=_AFTER)]
Json = Annotated[bool, _option("--json", help="Print the result as JSON.", panel=_AFTER)]
Csv = Annotated[Path | None, _option("--csv", help="Write a row per cell to this file.", panel=_AFTER)]
Html = Annotated[
    Path | None, _option("--html", help="Where the report goes; default: the result's folder.", panel=_AFTER)
]
Webhook = Annotated[str | None, _option("--webhook", help="URL that is told of the outcome.", panel=_AFTER)]
Baseline = Annotated[
    str | None,
    _option("--baseline", help="Compare with this: a baseline, an id or a name, latest, or a file.", panel=_AFTER),
]
FailOn = Annotated[
    str | None,
    _option(
        "--fail-on-regression",
        help="Exit code 4 where it is worse than the baseline by this: 5%, or ttft_p95=5%,... alone.",
        panel=_AFTER,
    ),
]
Resume = Annotated[
    str | None,
    _option("--resume", help="Go on with what was cut off: its id, or latest, and its options again.", panel=_AFTER),
]


@bench.command()
def run(
    targets: Targets,
    model: Model = None,
    api_key: ApiKey = None,
    header: Header = None,
    concurrency: Concurrency = None,
    rate: Rate = None,
    sweep: Sweep = None,
    slo: Limits = None,
    duration: Duration = None,
    requests: Requests = None,
    warmup: Warmup = None,
    workers: Workers = None,
    timeout: Timeout = None,
    input_tokens: InputTokens = None,
    output_tokens: OutputTokens = None,
    prompts: Prompts = None,
    trace: Trace = None,
    trace_speed: TraceSpeed = None,
    shared_prefix: SharedPrefix = None,
    turns: Turns = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    seed: Seed = None,
    usd_per_hour: UsdPerHour = None,
    name: Name = None,
    as_json: Json = False,
    csv: Csv = None,
    html: Html = None,
    webhook: Webhook = None,
    baseline: Baseline = None,
    fail_on_regression: FailOn = None,
    resume: Resume = None,
) -> None:
    """Measure TTFT, inter-token latency and throughput of any OpenAI-compatible server. No recipe is needed.

    Without options: made-up prompts of 256 tokens, answers of 128, at 1, 8 and 32 streams; about a minute.
    """
    from orchestrator.cli import bench_after, bench_options, bench_sweep

    limit = bench_options.regressions(fail_on_regression) if fail_on_regression else None
    after = bench_after.After(as_json, csv, html, webhook, baseline, limit)
    given = bench_options.Given(
        model=model,
        api_key=api_key,
        usd_per_hour=usd_per_hour,
        name=name,
        plan={
            "concurrency": concurrency,
            "rate": rate,
            "sweep": sweep,
            "slo": slo,
            "duration": duration,
            "requests": requests,
            "warmup": warmup,
            "workers": workers,
            "timeout": timeout,
            "max_tokens": max_tokens,
            "temperature": temperature,
            "seed": seed,
        },
        workload={
            "prompts": prompts,
            "trace": trace,
            "trace_speed": trace_speed,
            "input_tokens": input_tokens,
            "output_tokens": output_tokens,
            "shared_prefix": shared_prefix,
            "turns": turns,
        },
        headers=bench_options.headers(header or ()),
    )
    raise typer.Exit(bench_sweep.run(targets, given, after, home(), resume))
