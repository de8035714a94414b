"""Commands about benchmarks: bench run, list, show, compare, baseline, report, export, import."""

import json
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.app import app, home

Wanted = Annotated[str, typer.Argument(metavar="BENCHMARK", help="Id, latest, baseline:NAME, or a result file.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Limit = Annotated[int, typer.Option("-n", "--limit", help="Show the newest so many.", min=1)]

bench = typer.Typer(help="Measure servers, and compare what was measured.", no_args_is_help=True)
baseline = typer.Typer(help="The benchmarks that later ones are compared with.", no_args_is_help=True)
app.add_typer(bench, name="bench")
bench.add_typer(baseline, name="baseline")


@bench.command("list")
def list_(limit: Limit = 20, as_json: AsJson = False) -> None:
    """List stored benchmarks, the newest first."""
    from orchestrator.cli import bench_show
    from orchestrator.store.store import Store

    store = Store(home())
    results = store.benchmarks(limit)
    if as_json:
        print(json.dumps(results, indent=2))
    else:
        bench_show.listing(results, {found.name: found.benchmark for found in store.baselines()})


@bench.command()
def show(wanted: Wanted = "latest", as_json: AsJson = False) -> None:
    """Show a benchmark: every cell, the latency-throughput curve and what was found."""
    from orchestrator.cli import bench_results, bench_show
    from orchestrator.store.store import Store

    found = bench_results.find(Store(home()), wanted).result
    if as_json:
        print(found.model_dump_json(indent=2))
    else:
        bench_show.result(found.model_dump(mode="json"))


@bench.command()
def report(
    wanted: Wanted = "latest",
    html: Annotated[Path | None, typer.Option("--html", help="Where to; default: the benchmark's own folder.")] = None,
) -> None:
    """Write the HTML report of a benchmark: one file that loads nothing."""
    from orchestrator.cli import bench_results
    from orchestrator.store.store import Store

    found = bench_results.find(Store(home()), wanted)
    print(bench_results.write_report(found.result, html or found.folder / "report.html"))


@bench.command()
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="Id, latest, baseline:NAME, or a file; @TARGET for one of it.")],
    b: Annotated[str, typer.Argument(metavar="B", help="What is compared with A, in the same way.")],
    fail_on_regression: Annotated[
        str | None,
        typer.Option(
            "--fail-on-regression",
            help="Exit code 4 where B is worse by this share: 5%, or ttft_p95=5%,... alone.",
        ),
    ] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write the report of B, with the comparison.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare benchmark B with A: "B is 12 % [9, 15] slower in TTFT p95", by a bootstrap over paired prompts."""
    from orchestrator.cli import bench_after, bench_options, bench_results, bench_show
    from orchestrator.store.store import Store

    limit = bench_options.regressions(fail_on_regression) if fail_on_regression else None
    store = Store(home())
    ours, theirs = bench_results.find(store, a), bench_results.find(store, b)
    found = bench_results.compared(ours, theirs)
    if as_json:
        print(found.model_dump_json(indent=2))
    else:
        bench_show.comparison(found.model_dump(mode="json"))
    if html is not None:
        print(bench_results.write_report(theirs.result, html, found))
    bench_after.gate(found, limit, ours.result.id)


@bench.command()
def export(
    wanted: Wanted,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="File to write.")],
    form: Annotated[str, typer.Option("--format", help="guidellm, aiperf, vllm_bench, csv or json.")],
) -> None:
    """Write a benchmark in the format of another tool."""
    from orchestrator.cli import bench_results
    from orchestrator.store.store import Store

    for path in bench_results.export(bench_results.find(Store(home()), wanted), form, out):
        print(path)


@bench.command("import")
def import_(file: Annotated[Path, typer.Argument(metavar="FILE", help="Result of another tool, or of ours.")]) -> None:
    """Keep a result of GuideLLM, AIPerf or vllm bench, so that it can be shown and compared."""
    from orchestrator.cli import bench_results
    from orchestrator.store.store import Store

    found = bench_results.keep(Store(home()), file)
    print(f"{found.id}: {len(found.cells)} cells of {found.name}, from {found.source}; `orch bench show {found.id}`")


@baseline.command("set")
def set_(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of benchmarks, or of a service.")],
    wanted: Annotated[str, typer.Argument(metavar="BENCHMARK", help="Id of a stored benchmark, or latest.")],
) -> None:
    """Compare benchmarks of this name with that one from now on."""
    from orchestrator.store.store import Store

    print(f"baseline of {name}: {Store(home()).set_baseline(name, wanted)}")


@baseline.command("list")
def baselines(as_json: AsJson = False) -> None:
    """List the baselines."""
    from orchestrator.store.store import Store

    found = Store(home()).baselines()
    if as_json:
        print(json.dumps([each.model_dump() for each in found], indent=2))
    for each in found if not as_json else []:
        print(f"{each.name}  {each.benchmark}  by {each.who}")
    if not found and not as_json:
        print("no baseline yet; `orch bench baseline set NAME BENCHMARK`")
