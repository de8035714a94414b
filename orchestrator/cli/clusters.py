"""Commands about clusters: clusters list, check."""

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.app import app, home

clusters = typer.Typer(help="Where runs are carried out: files in clusters/, one a cluster.", no_args_is_help=True)
app.add_typer(clusters, name="clusters")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Which = Annotated[
    Path | None, typer.Argument(metavar="[CLUSTER]", help="A name in `orch clusters list`, or a file; default: local.")
]


@clusters.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the files in clusters/ here and in $ORCH_HOME: nodes, accelerators, price, whether Ray is reachable."""
    from orchestrator.cli import clusters_show

    clusters_show.listed(home(), as_json=as_json)


@clusters.command()
def check(cluster: Which = None, as_json: AsJson = False) -> None:
    """Ask every node: accelerators, drivers, disks, memory, environments, clock, versions, storage (exit code 5)."""
    from orchestrator.cli import clusters_show
    from orchestrator.clusters.load import load_cluster
    from orchestrator.ray import checking

    found = load_cluster(cluster, home())
    clusters_show.checked(found, checking.check(found, home()), as_json=as_json)
