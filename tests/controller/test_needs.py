"""Which places a run's next stages need."""

from orchestrator.clusters.cluster import Cluster
from orchestrator.controller import needs
from orchestrator.planner.plan import Plan, PlannedStage, Resources
from orchestrator.store.records import Bundle


def _plan(*stages: tuple[str, float, float]) -> Plan:
    planned = [
        PlannedStage(name=name, config={}, digest=name, resources=Resources(num_cpus=cpus, num_gpus=gpus))
        for name, cpus, gpus in stages
    ]
    return Plan(recipe="demo", path="", directory="", cluster=Cluster(name="x"), accelerator=None, stages=planned,
                gates=[], service=None, obstacles=[])  # fmt: skip


PLAN = _plan(("data", 1, 0), ("train", 2, 1), ("export", 4, 1), ("deploy", 0.1, 0))


def test_stages_that_need_the_same_accelerators_share_their_places() -> None:
    assert needs.need(PLAN, []).stages == ("data",)
    found = needs.need(PLAN, ["data"])
    assert (found.stages, found.bundle) == (("train", "export"), Bundle(num_cpus=4, num_gpus=1))
    assert found.seconds == 2 * needs.UNKNOWN_S
    assert needs.need(PLAN, ["data", "train", "export"]).stages == ("deploy",)


def test_where_all_is_done_it_begins_at_the_front() -> None:
    assert needs.need(PLAN, ["data", "train", "export", "deploy"]).stages == ("data",)


def test_places_fit_a_stage_that_needs_all_their_accelerators_and_no_more_cores() -> None:
    bundle = Bundle(num_cpus=2, num_gpus=1)
    assert [needs.fits(stage, bundle) for stage in PLAN.stages] == [False, True, False, False]
