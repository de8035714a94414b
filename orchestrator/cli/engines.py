"""Commands about environments of engines and quantizers: engines list, install, doctor, remove."""

from typing import Annotated, Any, Literal

import typer

from orchestrator.cli.app import app, home

engines = typer.Typer(
    help="Engines and quantizers, each in an environment of its own under $ORCH_HOME/engines.", no_args_is_help=True
)
app.add_typer(engines, name="engines")

Which = Annotated[str, typer.Argument(metavar="NAME[==VERSION]", help="As in `orch engines list`.")]
Some = Annotated[list[str] | None, typer.Argument(metavar="[NAME[==VERSION]]...", help="As in `orch engines list`.")]
Everything = Annotated[bool, typer.Option("--all", help="Everything that there is for this machine, or for --kind.")]
OptionalWhich = Annotated[
    str | None, typer.Argument(metavar="[NAME[==VERSION]]", help="Default: everything that is installed.")
]
Kind = Literal["cpu", "cuda", "rocm"]
OfKind = Annotated[Kind | None, typer.Option("--kind", help="What it computes on; default: this machine's.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@engines.command("list")
def list_(kind: OfKind = None, as_json: AsJson = False) -> None:
    """List environments: what for, which version, whether it is there and where, its size, and who uses it."""
    from orchestrator.cli import engines_show
    from orchestrator.serving import environments

    of, store = _kind(kind), _store()
    engines_show.listed(environments.listed(of, store), as_json=as_json)


@engines.command()
def install(names: Some = None, everything: Everything = False, kind: OfKind = None) -> None:
    """Install environments; one that is complete is kept, half of one is made again."""
    from orchestrator.errors import InputError
    from orchestrator.serving import environments

    of, store = _kind(kind), _store()
    if everything == bool(names):
        raise InputError("name what to install, or give --all", next_step="`orch engines list` shows what there is")
    wanted = [environments.named(name, store) for name in names or []]
    for environment in wanted or environments.installable(of):
        made = environments.install(environment, of, store, say=print)
        print(f"{made} is in {made.folder}")


@engines.command()
def doctor(name: OptionalWhich = None, kind: OfKind = None, as_json: AsJson = False) -> None:
    """Check environments: complete, Python runs, the module imports, versions are as locked, programs answer."""
    from orchestrator.cli import engines_show
    from orchestrator.serving import environments

    of, store = _kind(kind), _store()
    if name is None:
        there = [found for found in environments.listed(of, store) if found.state != "missing"]
    else:
        there = [environments.found(environments.named(name, store), of, store)]
    engines_show.examined(there, as_json=as_json)


@engines.command()
def remove(name: Which, kind: OfKind = None) -> None:
    """Remove an environment that no release uses."""
    from orchestrator.errors import InputError
    from orchestrator.serving import environments

    of, store = _kind(kind), _store()
    environment = environments.named(name, store)
    if not environments.remove(environment, of, store):
        raise InputError(f"{environment} is not installed for {of}", next_step="`orch engines list`")
    print(f"{environment} is removed")


def _kind(given: Kind | None) -> Kind:
    from orchestrator.environments.environment import here

    return given or here()


def _store() -> Any:
    from orchestrator.store.store import Store

    return Store(home())
