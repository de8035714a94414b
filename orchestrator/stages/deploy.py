"""deploy: starts the engine of a new release beside those that serve, behind the service's stable URL.

The release is a candidate: the gateway answers for `service@N`, and for `service` only once it is promoted.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from orchestrator import engines, plugins, token_contract
from orchestrator.config import Model
from orchestrator.engines import client
from orchestrator.errors import EngineError
from orchestrator.serving import gateway, start
from orchestrator.stages.base import Context, Outputs, Resources
from orchestrator.store.store import Store

LIBRARIES: tuple[str, ...] = ()
METRICS: tuple[str, ...] = ()


class Serve(Model):
    """The `serve` section of a recipe."""

    service: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    """Stable name that clients ask for; releases are numbered under it."""
    target: str
    """Name of the export that serves."""
    replicas: Literal[1] = 1
    """Engines of a release; more than one is not available yet."""
    engine_args: dict[str, Any] = {}
    """Options of the engine, by the engine's own names."""
    port: int = Field(gateway.DEFAULT_PORT, ge=1, le=65535)
    """Port of the stable URL on 127.0.0.1."""


class Config(Serve):
    """The section, and what the rest of the recipe adds to it."""

    engine: str
    """Engine of the target."""
    num_gpus: float = 0
    """Accelerators that the engine holds."""


def estimate(config: Config) -> Resources:
    """The stage itself only waits; the engine reserves its own share for as long as it runs."""
    return Resources(num_cpus=0.1)


def run(config: Config, context: Context) -> Outputs:
    """Raises InputError for a port in use, EngineError when the engine does not generate tokens."""
    store, module = Store(context.home), plugins.load(engines, config.engine)
    installed = context.site.ensure(next(iter(module.ENVIRONMENTS), None))
    spec = {
        "engine": config.engine,
        "engine_version": str(installed),
        "engine_args": config.engine_args,
        "model": context.inputs["export"].artifacts[config.target],
        "target": config.target,
        "num_gpus": config.num_gpus,
        "kind": context.site.kind,
        "images": dict(context.site.images),
        "versions": {installed.name: installed.version} if installed.where == "environment" else {},
        "port": config.port,
        "address": store.run(context.run).plan["cluster"]["address"],
    }
    gateway.check_port(config.port, context.home)
    release = store.get_or_create_release(config.service, context.digest, context.run, spec)
    context.say(f"starting {release.name} on {config.engine}")
    _warn_if_endless(Path(spec["model"]), context)
    start.start_engine(store, release)
    outputs = refresh(Outputs(report={"service": config.service, "number": release.number}), context.home)
    assert outputs is not None, "an engine that was ready a moment ago answers"
    return outputs


def refresh(outputs: Outputs, home: Path) -> Outputs | None:
    """The outputs as they are now, or None when the release does not answer any more and must be started again."""
    store, report = Store(home), outputs.report
    release = store.release(report["service"], report["number"])
    port = release.spec["port"]
    if release.state != "warm" or not _answers(release.url) or not gateway.is_ours(port, home):
        return None
    current = {
        "release": release.name,
        "engine": release.spec["engine"],
        "engine_version": release.spec["engine_version"],
        "target": release.spec["target"],
        "engine_url": release.url,
        "model": release.model,
        "request_fields": release.request_fields,
        "url": gateway.url(port),
    }
    return outputs.model_copy(update={"report": {**report, **current}})


def _warn_if_endless(export: Path, context: Context) -> None:
    contract = token_contract.read(export)
    if contract and contract.golden and not contract.golden.ended:
        context.say(
            "warning: this model did not learn to end its answers, its golden conversation goes on until max_tokens;"
            " the gate `parity.reference.stops, min: 1` would have stopped it here"
        )


def _answers(url: str | None) -> bool:
    try:
        client.call(f"{url}/models", timeout_s=5)
    except EngineError:
        return False
    return True
