"""The controller over a real store and a cluster that a test can break: nothing is lost, nothing runs twice."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator.clusters.cluster import Cluster, NodePool, Quota
from orchestrator.controller import recovery, runs
from orchestrator.controller.control import Control
from orchestrator.controller.wanted import Reader
from orchestrator.errors import InfrastructureError, StaleClaimError
from orchestrator.planner.plan import Plan, PlannedStage, Queueing, Resources
from orchestrator.store.records import Allocation
from orchestrator.store.store import Store
from tests.controller.fake_cluster import FakeCluster

HOURS = 3600.0
POOL = NodePool(count=2, cpus=8, accelerator="H100", accelerators=8)


class World:
    """A store, a cluster and the controller's rounds, with a clock that only a test moves."""

    def __init__(self, folder: Path, fake: FakeCluster, pools: list[NodePool], **more: Any) -> None:
        self.now, self.fake = 1e9, fake
        self.store = Store(folder, clock=lambda: self.now)
        self.value = Cluster(name="here", address="10.0.0.1:6379", nodes=pools, **more)
        self.restart()

    def restart(self) -> None:
        """Another controller, which knows only what the store says and the cluster runs."""
        self.reader, self.control = Reader(self.store), Control(self.fake, lambda: self.now)

    def submit(self, *gpus: float, **queueing: Any) -> str:
        """A run with a stage for each number."""
        stages = [
            PlannedStage(
                name=f"s{index}", config={}, digest=f"{index}", resources=Resources(num_cpus=1, num_gpus=count)
            )
            for index, count in enumerate(gpus)
        ]
        plan = Plan(recipe="demo", path="demo.yaml", directory="/", cluster=self.value, accelerator="H100",
                    stages=stages, gates=[], service=None, obstacles=[], queueing=Queueing(**queueing))  # fmt: skip
        self.now += 1
        return runs.create(self.store, plan)

    def step(self, *, patient: bool = False, store: Store | None = None) -> None:
        wanted = self.reader.read().get(self.value.address)
        if wanted is not None:
            self.control.step(store or self.store, wanted, patient=patient)

    def held(self, run: str) -> Allocation:
        found = self.store.allocations.current(run)
        assert found is not None, f"{run} holds nothing: {self.store.run(run).wait}"
        return found

    def state(self, run: str) -> str:
        return self.store.run(run).state

    def reason(self, run: str) -> str:
        wait = self.store.run(run).wait
        assert wait is not None
        return str(wait["reason"])


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, FakeCluster(a=8, b=8), [POOL])


def test_a_run_is_placed_and_told_where(world: World) -> None:
    run = world.submit(1)
    world.step()
    held = world.held(run)
    assert world.state(run) == "running"
    assert world.fake.started[held.name][0] == [held.placements[0].node]
    home, owner, attempt, target, *rest = world.fake.started[held.name][1]
    assert (home, owner, attempt, target) == (str(world.store.home), run, 1, "orchestrator.controller.drive:drive_held")
    assert rest == [str(world.store.home), run, 1]


def test_a_run_that_does_not_fit_says_what_it_waits_for_and_starts_when_it_does(world: World) -> None:
    first, second = world.submit(8), world.submit(8)
    world.step()
    third = world.submit(4)
    world.now += 10
    world.step()
    assert [world.state(run) for run in (first, second, third)] == ["running", "running", "queued"]
    assert "waits for 4 GPUs of H100: not free now" in world.reason(third)
    expected = world.store.run(third).wait["expected"]
    assert world.now < expected <= world.now + HOURS
    world.store.allocations.end(world.held(first), "finished", "done", run="succeeded")
    world.step()
    assert world.state(third) == "running"


def test_a_run_holds_accelerators_only_while_its_stages_need_them(world: World) -> None:
    run = world.submit(0, 0, 2, 2, 0)
    world.step()
    assert world.held(run).bundle.num_gpus == 0
    for stage in ("s0", "s1"):
        claim = world.store.claim_stage(run, stage)
        world.store.end_stage(claim, "succeeded", outputs={})
    world.now += 1
    world.store.allocations.end(world.held(run), "finished", "its next stages need other places", run="queued")
    world.step()
    assert world.held(run).bundle.num_gpus == 2
    assert world.held(run).attempt == 2


def test_another_controller_goes_on_and_touches_nothing_that_runs(world: World) -> None:
    run = world.submit(4)
    world.step()
    held = world.held(run)
    world.store.allocations.renew(held)
    for _ in range(3):
        world.restart()
        world.step()
    assert world.held(run).name == held.name
    assert list(world.fake.started) == [held.name]
    assert world.fake.ended == []


def test_a_cluster_that_is_not_reached_loses_nothing(world: World) -> None:
    run, waits = world.submit(8), world.submit(8)
    world.step()
    other = world.submit(8)
    world.fake.away = True
    with pytest.raises(InfrastructureError):
        world.step()
    assert [world.state(r) for r in (run, waits, other)] == ["running", "running", "queued"]
    assert "cannot reach Ray" in world.reason(other)
    world.fake.away = False
    world.step()
    assert world.held(run).attempt == 1


def test_a_driver_that_died_is_placed_again_later_each_time_and_not_for_ever(world: World) -> None:
    run = world.submit(1)
    world.step()
    waits = []
    for _ in range(recovery.MAX_LOSSES):
        held = world.held(run)
        world.store.allocations.renew(held)
        world.fake.started.clear()
        world.step()
        assert world.state(run) == "queued"
        lost = world.now
        while world.state(run) == "queued":
            world.now += 1
            world.step()
        waits.append(world.now - lost)
    assert world.state(run) == "failed"
    assert waits == [2, 4, 8, 16, 1]
    error = world.store.run(run).error
    assert error is not None
    assert "its driver was lost 5 times in a row; last: its process died" in error["message"]


def test_a_node_that_goes_away_costs_no_try(world: World) -> None:
    run = world.submit(1)
    for _ in range(10):
        world.step()
        node = world.held(run).placements[0].node
        gone = {node: world.fake.nodes.pop(node)}
        world.step()
        assert world.state(run) == "queued"
        world.fake.nodes |= gone
        world.now += recovery.LONGEST_WAIT_S
    world.step()
    assert world.held(run).attempt == 11
    assert {found.cause for found in world.store.allocations.of(run)[:-1]} == {"node"}


def test_a_driver_that_is_silent_is_stopped_unless_nobody_could_hear_it(world: World, tmp_path: Path) -> None:
    run = world.submit(1)
    world.step()
    held = world.held(run)
    _silent_for(world, held, 1000)
    world.step(patient=True)
    assert world.held(run).name == held.name
    world.step()
    assert world.fake.ended == [held.name]
    assert world.store.allocations.of(run)[0].cause == "silent"
    with pytest.raises(StaleClaimError, match="does not hold its places any more: it gave no sign of life"):
        world.store.holding(held).move_run(run, "succeeded")


def _silent_for(world: World, held: Allocation, seconds: float) -> None:
    from sqlalchemy import update

    from orchestrator.store import schema

    with world.store.database.begin() as connection:
        values = {"renewed": held.renewed - seconds, "begun": True}
        connection.execute(update(schema.allocations).where(schema.allocations.c.owner == held.owner).values(**values))


def test_what_nobody_knows_is_ended_and_what_is_not_ours_is_left_alone(world: World) -> None:
    run = world.submit(1)
    world.step()
    world.fake.started["old-run.3"] = ["a"], []
    world.fake.gateways.append("gateway-8800")
    world.step()
    assert world.fake.ended == ["old-run.3"]
    assert world.state(run) == "running"


def test_ray_without_room_puts_the_run_back(world: World) -> None:
    run, world.fake.full = world.submit(1), True
    world.step()
    assert world.state(run) == "queued"
    world.fake.full = False
    world.now += 5
    world.step()
    assert world.held(run).attempt == 2


def test_a_higher_priority_gets_places_of_a_lower_one_after_its_checkpoint(world: World) -> None:
    low, other = world.submit(8, priority=10), world.submit(8, priority=90)
    world.step()
    world.now += HOURS
    high = world.submit(8, priority=80)
    world.step()
    world.now += 120
    world.step()
    assert world.held(low).state == "yielding"
    assert world.held(other).state == "held"
    world.step()
    assert world.state(high) == "queued", "its places are not free yet"
    assert world.held(other).state == "held", "nobody else yields for it"
    world.store.allocations.end(world.held(low), "yielded", "saved", run="queued")
    world.step()
    assert world.state(high) == "running"
    assert world.state(low) == "queued"
    assert world.store.run(low).queued == world.now


def test_who_does_not_yield_in_time_is_stopped(world: World) -> None:
    low = world.submit(8, priority=10)
    world.submit(8, priority=90)
    world.step()
    world.now += HOURS
    world.submit(8, priority=80)
    for _ in range(2):
        world.now += 120
        world.step()
    held = world.held(low)
    _deadline_passed(world, held)
    world.step()
    assert world.store.allocations.of(low)[0].cause == "evicted"
    assert held.name in world.fake.ended


def _deadline_passed(world: World, held: Allocation) -> None:
    from sqlalchemy import update

    from orchestrator.store import schema

    with world.store.database.begin() as connection:
        mine = schema.allocations.c.owner == held.owner
        connection.execute(update(schema.allocations).where(mine).values(until=held.renewed - 1))


def test_runs_leave_a_node_that_is_drained(world: World) -> None:
    run = world.submit(1)
    world.step()
    held = world.held(run)
    world.fake.leaving[held.placements[0].node] = world.now + 100
    world.step()
    assert world.held(run).state == "yielding"
    assert "its node goes away" in str(world.held(run).reason)
    world.store.allocations.end(world.held(run), "yielded", "saved", run="queued")
    world.step()
    assert world.held(run).placements[0].node != held.placements[0].node


def test_a_quota_keeps_a_team_from_taking_everything(tmp_path: Path) -> None:
    quotas = {"law": Quota(gpus=8, borrow=0), "bio": Quota(gpus=8, borrow=0)}
    world = World(tmp_path, FakeCluster(a=8, b=8), [POOL], quotas=quotas)
    first, second, third = world.submit(8, team="law"), world.submit(8, team="law"), world.submit(8, team="bio")
    world.step()
    assert [world.state(run) for run in (first, second, third)] == ["running", "queued", "running"]
    assert "quota" in world.reason(second)


def test_who_has_waited_too_long_is_given_up(world: World) -> None:
    world.submit(8), world.submit(8)
    world.step()
    run = world.submit(8, max_wait_s=600.0)
    world.now += 601
    world.step()
    assert world.state(run) == "failed"
    error = world.store.run(run).error
    assert error is not None
    assert "may wait 600 s" in error["message"]


def test_kinds_are_kept_apart_and_a_node_of_no_pool_is_said(tmp_path: Path) -> None:
    pools = [POOL.model_copy(update={"count": 1}), NodePool(cpus=8, accelerator="MI300X", accelerators=4)]
    world = World(tmp_path, FakeCluster(amd=4, nvidia=8, odd=3), pools)
    first, second = world.submit(4), world.submit(8)
    world.step()
    assert world.held(first).placements[0].node == "nvidia"
    assert world.state(second) == "queued"
    assert "node odd is in no pool of cluster 'here'" in world.reason(second)


def test_a_node_that_does_not_see_the_folder_of_the_store_gets_nothing(world: World) -> None:
    world.fake.blind = {"a", "b"}
    run = world.submit(1)
    world.step()
    assert world.state(run) == "queued"
    assert f"node a does not see {world.store.home}: set ORCH_HOME to a shared folder" in world.reason(run)
    world.fake.blind = {"b"}
    world.now += 61
    world.step()
    assert world.held(run).placements[0].node == "a", "it was mended, and asked again"


def test_a_run_that_was_cancelled_while_its_driver_died_is_cancelled(world: World) -> None:
    run = world.submit(1)
    world.step()
    world.store.move_run(run, "cancelling")
    world.fake.started.clear()
    world.step()
    assert world.state(run) == "cancelled"


def test_a_controller_that_was_overtaken_changes_nothing(world: World) -> None:
    run = world.submit(1)
    lease = world.store.leases.acquire("controller", "first", 0.0)
    assert lease is not None
    assert world.store.leases.acquire("controller", "second", 60.0) is not None
    with pytest.raises(StaleClaimError, match="second holds it now"):
        world.step(store=world.store.under(lease))
    assert world.state(run) == "queued"
    assert world.fake.started == {}
