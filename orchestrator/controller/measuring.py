"""A run that goes as far as its benchmark: what `orch bench run RECIPE` does with a recipe that deploys something."""

from orchestrator.errors import InputError, NotAllowedError
from orchestrator.planner.plan import Plan
from orchestrator.recipe.stages import NEEDS
from orchestrator.store.store import Store

STAGE = "benchmark"


def up_to_benchmark(plan: Plan) -> Plan:
    """The plan without what the benchmark does not need: nothing is evaluated, nothing promoted.

    Raises InputError for a recipe without a benchmark, NotAllowedError where all that it measures is left out.
    """
    if plan.stage(STAGE) is None:
        if left_out := [f"{target.name}: {target.refused}" for target in plan.targets if target.left_out]:
            raise NotAllowedError(f"nothing that {plan.path} measures can run here: {'; '.join(left_out)}")
        raise InputError(f"{plan.path} has no `benchmark` section", next_step="add one, or measure a server by its URL")
    needed = _needed(STAGE)
    stages = [stage for stage in plan.stages if stage.name in needed]
    return plan.model_copy(update={"stages": stages, "gates": [gate for gate in plan.gates if gate.stage in needed]})


def _needed(stage: str) -> set[str]:
    return {stage}.union(*(_needed(other) for other in NEEDS[stage]))


def stop_candidate(store: Store, plan: Plan) -> None:
    """Stop what was deployed to be measured only; a release that was promoted is left alone."""
    deploy = plan.stage("deploy")
    for release in store.releases(plan.service) if plan.service and deploy else []:
        mine = deploy is not None and release.digest == deploy.digest
        if mine and release.promoted is None and release.state in ("starting", "warm"):
            store.move_release(release, "stopped", reason="it was measured, and never promoted")
