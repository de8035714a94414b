"""Commands about services: releases, promote, rollback, serve up|down."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.app import app, home
from orchestrator.errors import NotAllowedError

if TYPE_CHECKING:
    from orchestrator.store.records import Release
    from orchestrator.store.store import Store

ServiceName = Annotated[str, typer.Argument(metavar="SERVICE", help="Name of the service.")]
OptionalService = Annotated[str | None, typer.Argument(metavar="[SERVICE]", help="Name of a service; default: all.")]
Reason = Annotated[str | None, typer.Option("--reason", help="Why; kept in the event log.")]
ToNumber = Annotated[int, typer.Option("--to", help="Number of the release.")]
ToOptional = Annotated[int | None, typer.Option("--to", help="Number of the release; default: the one before.")]

serving = typer.Typer(help="Start or stop the engines and the gateway of a service.", no_args_is_help=True)
app.add_typer(serving, name="serve")


@app.command()
def releases(service: OptionalService = None, as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """List the releases of a service and what happened to them."""
    from orchestrator.cli import show
    from orchestrator.store.store import Store

    show.releases(Store(home()), service, as_json=as_json)


@app.command()
def rollback(service: ServiceName, to: ToOptional = None, reason: Reason = None) -> None:
    """Switch the service back to an earlier release; requests in flight finish where they are."""
    from orchestrator.serving import gateway, releases
    from orchestrator.store.store import Store

    begun, store = time.monotonic(), Store(home())
    target = store.release(service, to) if to else releases.rollback_target(store, service)
    if target.state != "warm":
        target = _started(store, target)
    left = releases.rollback(store, service, target, reason)
    seconds = gateway.follows(target.spec["port"], service, target.number)
    _say_switched(f"{service}@{left} -> {target.name}", seconds, begun, target.spec["port"])


@app.command()
def promote(service: ServiceName, to: ToNumber, reason: Reason = None) -> None:
    """Make a release the one that the service's name stands for, whatever gates said."""
    from orchestrator.serving import gateway, releases
    from orchestrator.store.store import Store

    begun, store = time.monotonic(), Store(home())
    target = store.release(service, to)
    if target.state != "warm":
        target = _started(store, target)
    before = store.service(service).current
    releases.promote(store, target, reason or "by hand")
    seconds = gateway.follows(target.spec["port"], service, target.number)
    _say_switched(f"{service}@{before} -> {target.name}", seconds, begun, target.spec["port"])


@serving.command()
def up(service: ServiceName) -> None:
    """Start the gateway and the engines of the current release and of the one that a rollback goes to."""
    from orchestrator.serving import gateway, releases
    from orchestrator.store.store import Store

    store = Store(home())
    numbers = sorted(releases.kept_warm(store, service))
    if not numbers:
        raise NotAllowedError(
            f"nothing of {service} was ever promoted",
            next_step=f"`orch releases {service}`, `orch promote {service} --to N`",
        )
    for number in numbers:
        release = _started(store, store.release(service, number))
        print(f"{release.name} is warm")
    print(gateway.url(release.spec["port"]))


@serving.command("down")
def stop(service: ServiceName) -> None:
    """Stop the engines of a service once their requests in flight have finished; its URL then answers 503."""
    from orchestrator.store.store import Store

    store = Store(home())
    store.service(service)
    for release in store.releases(service):
        if release.state in ("starting", "warm"):
            store.move_release(release, "stopped", reason="orch serve down")
            print(f"{release.name} is stopping")


def _started(store: "Store", release: "Release") -> "Release":
    from orchestrator.controller import process
    from orchestrator.serving import start

    process.ensure(store, release.spec["address"])
    return start.start_engine(store, release)


def _say_switched(what: str, seconds: float | None, begun: float, port: int) -> None:
    from orchestrator.serving import gateway

    if seconds is None:
        print(f"{what}: written, but no gateway confirmed it on port {port}; `orch serve up` starts it")
        raise typer.Exit(5)
    total = time.monotonic() - begun
    print(f"{what}: the gateway follows after {1000 * seconds:.0f} ms (whole command {total:.2f} s)")
    print(f"  {gateway.url(port)} now answers from the new one; requests in flight finish where they are")
