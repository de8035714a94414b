"""Commands about the store itself: backup, restore, check."""

from collections.abc import Mapping
from typing import Annotated

import typer

from orchestrator.cli.app import app, home
from orchestrator.errors import OrchError

commands = typer.Typer(help="Back the store up, restore it, check that it is whole.", no_args_is_help=True)
app.add_typer(commands, name="store")


@commands.command()
def backup(
    to: Annotated[str, typer.Option("--to", metavar="URI", help="A folder, or s3://, gs://, az:// with its driver.")],
    artifacts: Annotated[bool, typer.Option("--artifacts", help="Also what finished stages have made.")] = False,
) -> None:
    """Copy the store as it is at this moment; runs may go on. A later one to the same place sends only what is new."""
    from orchestrator.store import backup
    from orchestrator.store.store import Store

    print(f"saved as {backup.backup(Store(home()).database, home(), to, artifacts=artifacts)}")


@commands.command()
def restore(
    from_: Annotated[str, typer.Option("--from", metavar="URI", help="Where backups are: the newest; or one of them.")],
) -> None:
    """Fill an empty store from a backup, which may be that of another kind of database or of an older version."""
    from orchestrator.store import backup
    from orchestrator.store.store import Store

    store = Store(home())
    found = backup.restore(store.database, home(), from_)
    counts = _counts(found.rows, len(found.artifacts))
    print(f"restored into {store.place}, as it was in {found.store}: {counts}")


@commands.command()
def check() -> None:
    """Read everything: the database, the events against the states, the artifacts of finished stages (exit code 5)."""
    from orchestrator.store import check
    from orchestrator.store.store import Store

    store = Store(home())
    found = check.check(store.database)
    for problem in found.problems:
        print(problem)
    counts = f"{_counts(found.rows, found.artifacts)} ({found.bytes / 1e6:,.1f} MB)"
    if found.problems:
        raise OrchError(
            f"{store.place}: problems: {len(found.problems)}; {counts}",
            next_step="`orch run RECIPE --force STAGE` makes an artifact again; a backup can be restored elsewhere",
        )
    print(f"{store.place} is whole: {counts}")


def _counts(rows: Mapping[str, int], artifacts: int) -> str:
    return f"runs: {rows['runs']}, events: {rows['events']}, artifacts: {artifacts}"
