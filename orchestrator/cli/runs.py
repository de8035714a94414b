"""Commands about runs: run, plan, schema, status, logs, cancel, resume, down."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.cli.app import app, home

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="The recipe's YAML file.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Overrides, such as train.learning_rate=1e-4.")
]
ClusterFile = Annotated[Path | None, typer.Option("-c", "--cluster", help="Cluster file; default: this machine.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="Id of the run, as `orch status` lists it.")]
OptionalRunId = Annotated[str | None, typer.Argument(metavar="[RUN]", help="Id of a run; default: all, newest first.")]
Detach = Annotated[bool, typer.Option("-d", "--detach", help="Start the run and return at once.")]
Force = Annotated[list[str] | None, typer.Option("--force", help="Run this stage, and all after it, again.")]
Explain = Annotated[bool, typer.Option("--explain", help="Show each value of the recipe and where it came from.")]
Follow = Annotated[bool, typer.Option("-f", "--follow", help="Go on until the run ends.")]


@app.command()
def run(
    recipe: RecipeFile,
    overrides: Overrides = None,
    cluster: ClusterFile = None,
    detach: Detach = False,
    force: Force = None,
) -> None:
    """Carry a recipe out: train, evaluate, export, deploy, benchmark, promote. Ctrl-C detaches."""
    from orchestrator.cli import follow, show
    from orchestrator.controller import preflight, runs

    loaded, plan, store = _planned(recipe, overrides, cluster)
    preflight.check(loaded.recipe, plan, store.home, Path.cwd())
    if runs.is_reusable(plan) and not force:
        show.reused(plan, store)
        return
    name = runs.create(store, plan, force or [])
    show.started(plan, name)
    runs.launch(store, name)
    if detach:
        print(f"{name} runs in the background; `orch logs -f {name}` follows it")
    else:
        sys.exit(follow.follow(store, name))


@app.command()
def plan(
    recipe: RecipeFile,
    overrides: Overrides = None,
    cluster: ClusterFile = None,
    explain: Explain = False,
    as_json: AsJson = False,
) -> None:
    """Show what `orch run` would do: stages, resources, what is reused. Starts nothing."""
    from orchestrator.cli import show

    loaded, planned, _ = _planned(recipe, overrides, cluster)
    if explain:
        show.origins(loaded)
    elif as_json:
        print(planned.model_dump_json(indent=2))
    else:
        show.plan(planned)


@app.command()
def schema() -> None:
    """Print the recipe language's JSON Schema, for completion in an editor."""
    from orchestrator.recipe.recipe import Recipe

    print(json.dumps(Recipe.model_json_schema(), indent=2))


@app.command()
def status(run: OptionalRunId = None, as_json: AsJson = False) -> None:
    """Show services, releases and runs; with RUN, the stages of one run."""
    from orchestrator.cli import show
    from orchestrator.store.store import Store

    store = Store(home())
    if run:
        show.run(store, run, as_json=as_json)
    else:
        show.status(store, as_json=as_json)


@app.command()
def logs(run: RunId, following: Follow = False) -> None:
    """Show the events of a run; -f attaches to a running one again."""
    from orchestrator.cli import follow
    from orchestrator.store.store import Store

    store = Store(home())
    store.run(run)  # a clear error for an unknown one
    if following:
        sys.exit(follow.follow(store, run))
    for event in store.events(run=run):
        print(follow.line(event))


@app.command()
def cancel(run: RunId) -> None:
    """Stop a run; `orch resume` goes on at its stage, training from the last checkpoint."""
    from orchestrator.controller import runs
    from orchestrator.store.store import Store

    runs.cancel(Store(home()), run)
    print(f"{run} is being cancelled; `orch resume {run}` goes on later")


@app.command()
def resume(run: RunId, detach: Detach = False) -> None:
    """Go on with a failed, cancelled or lost run at the stage where it stopped."""
    from orchestrator.cli import follow
    from orchestrator.controller import runs
    from orchestrator.store.store import Store

    store = Store(home())
    runs.resume(store, run)
    runs.launch(store, run)
    if not detach:
        sys.exit(follow.follow(store, run))


@app.command()
def down() -> None:
    """Stop the scheduler, and the local Ray with all that it runs: stages, engines and the gateway. Nothing is lost."""
    from orchestrator.controller import runs, schedule
    from orchestrator.store.store import Store

    store = Store(home())
    scheduler = schedule.stop(store.home)  # first: it must not start anything again
    stopped = runs.stop_everything(store)
    if scheduler:
        print("the scheduler is stopped; `orch schedule serve -d` starts it again")
    if stopped or not scheduler:
        print("stopped; `orch serve up SERVICE` serves again" if stopped else "nothing was running")


def _planned(recipe: Path, overrides: list[str] | None, cluster: Path | None) -> Any:
    from orchestrator.clusters.cluster import load_cluster
    from orchestrator.controller.planning import make_plan
    from orchestrator.recipe.load import load_recipe
    from orchestrator.store.store import Store

    loaded = load_recipe(recipe, overrides or [], home())
    store = Store(home())
    return loaded, make_plan(loaded, load_cluster(cluster), store, Path.cwd()), store
