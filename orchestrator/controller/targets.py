"""What a plan says of every export target: whether it can be served there, in which environment, by which command."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator import engines, plugins
from orchestrator.clusters.cluster import Cluster
from orchestrator.controller import asked, refusals
from orchestrator.controller.asked import Target
from orchestrator.controller.known import Known
from orchestrator.engines.base import LORA, Launch
from orchestrator.engines.running import HOST
from orchestrator.environments.environment import OWN, Environment, Installed, kind_of
from orchestrator.environments.folder import Folder
from orchestrator.environments.site import Site
from orchestrator.errors import InfrastructureError
from orchestrator.planner.plan import PlannedStage, PlannedTarget
from orchestrator.stages.train import adapter_of

PORT = 8000
"""Stands for the free one that the run will find."""


def planned(
    known: Known, stages: Sequence[PlannedStage], cluster: Cluster, accelerator: str | None
) -> list[PlannedTarget]:
    """Every target of the recipe, also those that are left out."""
    home = known.store.home
    site = Site(home, kind_of(accelerator), cluster.images, cluster.versions, say=lambda _: None)
    slot, given = known.placement.basis, asked.engine_args(known.recipe)
    digest = next((stage.digest[:16] for stage in stages if stage.name == "export"), "DIGEST")
    folder = home / "stages" / f"export-{digest}"
    used = {name: _environment(name, site) for name in {export.engine for export in known.targets}}
    return [
        _planned(
            export,
            known,
            folder / export.name,
            asked.on(export.engine, given.get(export.name, {}), slot.count if slot else 0),
            used[export.engine],
        )
        for export in known.targets
    ]


def obstacles(known: Known) -> list[tuple[str, str]]:
    """(what stands in the way, what to change) of targets that the run needs, where it asks for no accelerator."""
    if known.placement.basis is not None:
        return []  # the choice of the accelerator has said it
    return [
        (f"{export.name} cannot be served here: {known.refused[export.name]}", refusals.instead(export, None))
        for export in known.targets
        if export.required and export.name in known.refused
    ]


class Used(NamedTuple):
    """The environment that an engine serves from."""

    installed: Installed
    """As it is, or where it would be."""
    name: str | None
    """With its version; None: the interpreter that runs orch."""
    here: bool
    """Whether it is on this machine."""


def _planned(export: Target, known: Known, model: Path, given: Mapping[str, Any], used: Used) -> PlannedTarget:
    module = plugins.load(engines, export.engine)
    options = module.Options(**given)
    launch = Launch(
        model=model,
        alias=_alias(export, known),
        host=HOST,
        port=PORT,
        directory=known.store.home / "logs",
        installed=used.installed,
        options=options,
        **(_on_its_base(known) if export.quantization == LORA else {}),
    )
    return PlannedTarget(
        name=export.name,
        engine=export.engine,
        quantization=export.quantization,
        required=export.required,
        refused=known.refused.get(export.name),
        environment=used.name,
        installed=used.here,
        command=module.command(launch, options),
        variables=module.environment(launch, options),
        files={str(launch.directory / name): text for name, text in module.files(launch, options).items()},
    )


def _on_its_base(known: Known) -> dict[str, Any]:
    """What an engine would read from the export of an adapter; BASE stands for a base that is not here yet."""
    train, source = known.recipe.train, known.recipe.base_model
    named = source.path if source and source.path and not source.prepare else "BASE"
    return {"adapter": adapter_of(train) if train else None, "base": known.base.folder or Path(named)}


def _alias(export: Target, known: Known) -> str:
    """N stands for the number that the release will get."""
    serve = known.recipe.serve
    return f"{serve.service}@N" if serve and serve.target == export.name else export.name


def _environment(engine: str, site: Site) -> Used:
    """Looked for once: a program on PATH is started to tell its version."""
    declared = next(iter(plugins.load(engines, engine).ENVIRONMENTS), None)
    if declared is None:
        return Used(OWN, None, here=True)
    needed = site.wanted(declared)
    found = _found(needed, site)
    used = found or _to_be(needed, site)
    return Used(used, str(used), here=found is not None)


def _found(needed: Environment, site: Site) -> Installed | None:
    """On this machine; None: missing, or an image where nothing runs containers."""
    try:
        return site.find(needed)
    except InfrastructureError:
        return None


def _to_be(needed: Environment, site: Site) -> Installed:
    """Where a missing one will be; of one that there is not for this machine, where it would be on another."""
    kind = site.kind if site.kind in needed.kinds else next(iter(needed.kinds), site.kind)
    folder = Folder.of(site.home, needed, kind).path
    return Installed(name=needed.name, version=needed.version, where="environment", folder=folder)
