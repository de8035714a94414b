"""What a plan says of every export target: whether it can be served there, in which environment, by which command."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
    return [
        _planned(
            export, known, site, folder, asked.on(export.engine, given.get(export.name, {}), slot.count if slot else 0)
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


def _planned(export: Target, known: Known, site: Site, folder: Path, given: Mapping[str, Any]) -> PlannedTarget:
    module = plugins.load(engines, export.engine)
    options, declared = module.Options(**given), next(iter(module.ENVIRONMENTS), None)
    needed = site.wanted(declared) if declared else None
    installed = _found(needed, site)
    used = installed or (_to_be(site.wanted(needed), site) if needed else OWN)
    launch = Launch(
        model=folder / export.name,
        alias=_alias(export, known),
        host=HOST,
        port=PORT,
        directory=site.home / "logs",
        installed=used,
        options=options,
        **(_on_its_base(known) if export.quantization == LORA else {}),
    )
    return PlannedTarget(
        name=export.name,
        engine=export.engine,
        quantization=export.quantization,
        required=export.required,
        refused=known.refused.get(export.name),
        environment=str(used) if needed else None,
        installed=installed is not None,
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


def _found(needed: Environment | None, site: Site) -> Installed | None:
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
