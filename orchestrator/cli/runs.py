"""Commands about runs: run, plan, schema, status, logs, cancel, resume, down."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.cli import topic
from orchestrator.cli.app import app, home
from orchestrator.cli.topic import ORIGINS, SERVE, WithTopic
from orchestrator.errors import InputError, NotAllowedError

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="The recipe's YAML file.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Overrides, such as train.learning_rate=1e-4.")
]
BudgetOverrides = Annotated[
    list[str] | None, typer.Argument(metavar="[budget.KEY=VALUE]...", help="Limits, such as budget.max_cost_usd=60.")
]
ClusterFile = Annotated[
    Path | None, typer.Option("-c", "--cluster", help="A cluster, or its file; default: this machine.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="Id of the run, as `orch status` lists it.")]
OptionalRunId = Annotated[str | None, typer.Argument(metavar="[RUN]", help="Id of a run; default: all, newest first.")]
Detach = Annotated[bool, typer.Option("-d", "--detach", help="Start the run and return at once.")]
Force = Annotated[list[str] | None, typer.Option("--force", help="Run this stage, and all after it, again.")]
Explain = Annotated[
    str | None,
    typer.Option(
        "--explain",
        metavar="[TOPIC]",
        help="Show where each value of the recipe came from; the sum behind memory, time or cost; or, with serve, the"
        " command of every target.",
    ),
]
Accuracy = Annotated[bool, typer.Option("--accuracy", help="Show how well the plans of past runs held.")]
AcceptRisk = Annotated[
    str | None,
    typer.Option("--accept-license-risk", metavar="WHY", help="Go on although a licence forbids it; recorded."),
]
OptionalRecipeFile = Annotated[Path | None, typer.Argument(metavar="RECIPE", help="The recipe's YAML file.")]
SchemaOf = Annotated[str, typer.Argument(metavar="[recipe|plan]", help="What the schema describes.")]
Follow = Annotated[bool, typer.Option("-f", "--follow", help="Go on until the run ends.")]


@app.command()
def run(
    recipe: RecipeFile,
    overrides: Overrides = None,
    cluster: ClusterFile = None,
    detach: Detach = False,
    force: Force = None,
    accept_license_risk: AcceptRisk = None,
) -> None:
    """Carry a recipe out: train, evaluate, export, deploy, benchmark, promote. Ctrl-C detaches."""
    from orchestrator.cli import follow, show
    from orchestrator.controller import preflight, runs

    loaded, plan, store = _planned(recipe, overrides, cluster, accept_license_risk, force or [])
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


@app.command(cls=WithTopic)
def plan(
    recipe: OptionalRecipeFile = None,
    overrides: Overrides = None,
    cluster: ClusterFile = None,
    explain: Explain = None,
    accuracy: Accuracy = False,
    accept_license_risk: AcceptRisk = None,
    as_json: AsJson = False,
) -> None:
    """Show what `orch run` would do: does it fit, how long, what does it cost, is it allowed. Starts nothing."""
    if explain is not None:
        topic.check(explain)
    if accuracy:
        from orchestrator.cli import accuracy_show

        accuracy_show.accuracy(home(), recipe, as_json=as_json)
        return
    if recipe is None:
        raise InputError("which recipe?", next_step="`orch plan RECIPE`, or `orch plan --accuracy` for past runs")
    from orchestrator.cli import plan_show, plan_targets, show

    loaded, planned, _ = _planned(recipe, overrides, cluster, accept_license_risk)
    if explain == ORIGINS:
        show.origins(loaded)
    elif as_json:
        print(planned.model_dump_json(indent=2))
    elif explain == SERVE:
        plan_targets.commands(show.console(), planned)
    elif explain:
        plan_show.explain(show.console(), planned, explain)
    else:
        show.plan(planned)
    if planned.refused and explain is None:
        sys.exit(NotAllowedError.exit_code)


@app.command()
def schema(of: SchemaOf = "recipe") -> None:
    """Print the JSON Schema of the recipe language, for completion in an editor; or that of `orch plan --json`."""
    from orchestrator.plugins import nearest

    if of not in ("recipe", "plan"):
        raise InputError(f"no schema {of!r}; {nearest(of, ['recipe', 'plan'])}")
    from orchestrator.planner.plan import Plan
    from orchestrator.recipe.recipe import Recipe

    kind = Plan if of == "plan" else Recipe
    print(json.dumps(kind.model_json_schema(), indent=2))


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
def resume(run: RunId, overrides: BudgetOverrides = None, detach: Detach = False) -> None:
    """Go on with a failed, cancelled or lost run at the stage where it stopped; with another budget if need be."""
    from orchestrator.cli import follow
    from orchestrator.controller import runs
    from orchestrator.store.store import Store

    store = Store(home())
    runs.resume(store, run, overrides or [])
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


def _planned(
    recipe: Path, overrides: list[str] | None, cluster: Path | None, why: str | None, forced: Sequence[str] = ()
) -> Any:
    """(loaded recipe, plan, store). `why`: the reason for taking a licence's risk; `forced`: stages that run again."""
    from orchestrator.clusters.load import load_cluster
    from orchestrator.controller.planning import make_plan
    from orchestrator.planner.forecast import Acceptance
    from orchestrator.recipe.load import load_recipe
    from orchestrator.store.identity import user
    from orchestrator.store.store import Store

    if why is not None and not why.strip():
        raise InputError("--accept-license-risk needs a reason: who reads the record later wants to know why")
    accepted = Acceptance(who=user(), reason=why.strip()) if why else None
    loaded = load_recipe(recipe, overrides or [], home())
    store = Store(home())
    found = make_plan(loaded, load_cluster(cluster, home()), store, Path.cwd(), accepted=accepted, forced=forced)
    return loaded, found, store
