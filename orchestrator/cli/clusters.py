"""Commands about clusters: clusters list, check, up, down."""

import contextlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli import runs
from orchestrator.cli.app import app, home

clusters = typer.Typer(help="Where runs are carried out: files in clusters/, one a cluster.", no_args_is_help=True)
app.add_typer(clusters, name="clusters")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Which = Annotated[
    Path | None, typer.Argument(metavar="[CLUSTER]", help="A name in `orch clusters list`, or a file; default: local.")
]
Named = Annotated[Path, typer.Argument(metavar="CLUSTER", help="A name in `orch clusters list`, or a file.")]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="FOLDER", help="Where the files lie; default: clusters/CLUSTER.up.")
]
Apply = Annotated[bool, typer.Option("--apply", help="Run the command too, which may cost money.")]


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
    with contextlib.redirect_stdout(sys.stderr):  # Ray tells there of a node that dies, in the midst of our JSON
        checked = checking.check(found, home())
    clusters_show.checked(found, checked, as_json=as_json)


@clusters.command()
def up(cluster: Named, out: Out = None, apply: Apply = False) -> None:
    """Write what starts the nodes (`ray up`, RayCluster, Slurm job) for review; --apply starts them. local: starts."""
    from orchestrator.cli import clusters_show
    from orchestrator.clusters import launching
    from orchestrator.clusters.load import LOCAL, load_cluster
    from orchestrator.ray import checking

    found = load_cluster(cluster, home())
    if found.address == LOCAL:
        print(f"Ray of {found.name} runs at {checking.start_local(home())}; `orch down` stops it")
        return
    written = launching.write(found, out or _folder(cluster))
    clusters_show.written(found, written, apply=apply)
    if apply:
        launching.up(found, written.folder)
        print(f"`orch clusters check {cluster}` says whether every node has come")


@clusters.command()
def down(cluster: Named, out: Out = None, apply: Apply = False) -> None:
    """Show the command that ends the nodes that `up --apply` started; --apply runs it. local: `orch down`."""
    from orchestrator.clusters import launching
    from orchestrator.clusters.load import LOCAL, load_cluster

    found = load_cluster(cluster, home())
    folder = out or _folder(cluster)
    if found.address == LOCAL:
        runs.down()
    elif apply:
        launching.down(found, folder)
    else:
        print(f"cd {folder} && {' '.join(launching.down_command(found))}")
        print("nothing was ended; --apply runs this")


def _folder(cluster: Path) -> Path:
    """Beside the cluster files of the current folder."""
    return Path("clusters") / f"{cluster.stem}.up"
