"""The policy as a whole: what holds in every state, and the cases that a user would ask about."""

import math
from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from states import HOUR, busy, gone, nodes, run, running, started, state, take

from orchestrator.scheduler.decisions import Plan, Preempt
from orchestrator.scheduler.policy import decide
from orchestrator.scheduler.rules import Rules
from orchestrator.scheduler.series import Series
from orchestrator.scheduler.values import Demand, Node, Option, Quota, State

PATIENT = Rules(preempt_trade=0.0)


@given(busy())
@settings(max_examples=40, deadline=None)
def test_no_node_ever_holds_more_than_it_has(given_state):
    plan = decide(given_state)
    runs = {entry.id: entry for entry in given_state.queued}
    cluster = gone(given_state, plan).nodes
    for start in plan.starts:
        cluster = take(cluster, runs[start.run].demand, start.placements)
    for node in cluster:
        assert min(node.free) >= 0
        assert node.cpus > -1e-6
        assert node.memory > -1e-6


@given(busy())
@settings(max_examples=40, deadline=None)
def test_a_gang_starts_whole_and_on_one_kind_that_it_accepts(given_state):
    runs = {entry.id: entry for entry in given_state.queued}
    kind_of = {node.name: node.kind for node in given_state.nodes}
    for start in decide(given_state).starts:
        demand = runs[start.run].demand
        assert len(start.placements) == demand.bundles
        assert all(len(set(place.gpus)) == demand.gpus for place in start.placements)
        if start.kind != "*":
            assert {kind_of[place.node] for place in start.placements} == {start.kind}
            assert start.kind in runs[start.run].kinds


@given(busy())
@settings(max_examples=30, deadline=None)
def test_every_run_starts_or_waits_with_a_reason_and_a_time(given_state):
    plan = decide(given_state)
    assert set(plan.waits) == {entry.id for entry in given_state.queued} - set(started(plan))
    for wait in plan.waits.values():
        assert wait.reason
        assert wait.expected >= given_state.now


@given(busy())
@settings(max_examples=20, deadline=None)
def test_the_same_values_give_the_same_plan_also_as_a_series(given_state):
    kept = replace(
        given_state,
        nodes=Series(given_state.nodes),
        queued=Series(given_state.queued),
        running=Series(given_state.running),
    )
    assert decide(given_state) == decide(given_state) == decide(kept)


@given(busy())
@settings(max_examples=30, deadline=None)
def test_backfill_never_delays_a_reservation_when_estimates_are_exact(given_state):
    plan = decide(given_state, PATIENT)
    runs = {entry.id: entry for entry in given_state.queued}
    for reserved in plan.reservations:
        holder = runs[reserved.run]
        cluster = given_state.nodes
        for start in plan.starts:  # those that have not ended by then hold their places
            if runs[start.run].priority > holder.priority:
                return  # a higher class may delay it
            option = next(o for o in runs[start.run].options if o.kind in (start.kind, "*"))
            if given_state.now + option.seconds > reserved.at:
                cluster = take(cluster, runs[start.run].demand, start.placements)
        left = State(given_state.now, cluster, given_state.queued, given_state.running)
        ended = [entry for entry in given_state.running if entry.ends <= reserved.at]
        for entry in ended:
            left = gone(left, Plan(preemptions=(Preempt(entry.run.id, 0.0, 0.0, ""),)))
        after = take(left.nodes, holder.demand, reserved.placements)
        assert all(min(node.free) >= 0 and node.cpus > -1e-6 for node in after)


QUOTAS = {"a": Quota(4.0, 2.0), "b": Quota(8.0, 0.0), "c": Quota(2.0)}


@given(busy(quotas=QUOTAS))
@settings(max_examples=30, deadline=None)
def test_no_team_goes_beyond_what_it_owns_and_may_borrow(given_state):
    plan = decide(given_state)
    runs = {entry.id: entry for entry in given_state.queued}
    victims = {preemption.run for preemption in plan.preemptions}
    held = Counter()
    for entry in given_state.running:
        held[entry.run.team] += 0 if entry.run.id in victims else entry.run.demand.size
    grown = {runs[start.run].team for start in plan.starts}
    for start in plan.starts:
        held[runs[start.run].team] += runs[start.run].demand.size
    assert all(held[team] <= QUOTAS[team].gpus + QUOTAS[team].borrow + 1e-6 for team in grown)


def test_an_empty_queue_is_an_empty_plan():
    assert decide(state(nodes(), [])).starts == ()
    assert decide(state((), [run("r")])).starts == ()


def test_the_shortest_goes_first_within_a_class_and_the_higher_class_before_all():
    queued = [run("long", 8, seconds=9 * HOUR), run("short", 8, seconds=HOUR)]
    assert set(started(decide(state(nodes(1), queued)))) == {"short"}
    queued = [replace(queued[0], priority=1), queued[1]]
    assert set(started(decide(state(nodes(1), queued)))) == {"long"}


def test_a_gang_that_has_waited_long_gets_a_reservation_that_only_short_runs_may_fill():
    busy_run = running(run("now", 8, seconds=2 * HOUR), ("H100-0", tuple(range(8))))
    gang = run("gang", 8, 2, waiting_since=-50 * HOUR)
    queued = [gang, run("short", 4, seconds=HOUR), run("long", 4, seconds=3 * HOUR)]
    plan = decide(state(nodes(2), queued, [busy_run]), PATIENT)
    assert set(started(plan)) == {"short"}
    assert [(kept.run, kept.at) for kept in plan.reservations] == [("gang", 2 * HOUR)]
    assert plan.waits["gang"].expected == 2 * HOUR
    assert "would delay gang" in plan.waits["long"].reason


def test_a_run_starts_on_the_fastest_kind_or_the_cheapest_that_keeps_its_deadline():
    cluster = nodes(1, kind="H100") + nodes(1, kind="A100")
    options = (Option("H100", HOUR, usd=40.0), Option("A100", 2 * HOUR, usd=20.0))
    asked = run("r")
    for prefer, deadline, kind in [
        ("time", math.inf, "H100"),
        ("cost", math.inf, "A100"),
        ("cost", 1.5 * HOUR, "H100"),
    ]:
        queued = [replace(asked, options=options, prefer=prefer, deadline=deadline)]
        assert started(decide(state(cluster, queued)))["r"].kind == kind


def test_a_much_slower_kind_is_taken_only_after_a_wait_as_long_as_the_loss():
    options = (Option("H100", HOUR), Option("A100", 10 * HOUR))
    cluster = nodes(1, kind="A100")
    asked = replace(run("r"), options=options)
    early = decide(state(cluster, [asked], now=HOUR))
    assert "faster" in early.waits["r"].reason
    assert started(decide(state(cluster, [asked], now=9 * HOUR)))["r"].kind == "A100"


def test_a_run_near_its_deadline_goes_ahead():
    queued = [run("short", 8, seconds=HOUR), run("due", 8, seconds=2 * HOUR, deadline=3 * HOUR)]
    assert set(started(decide(state(nodes(1), queued)))) == {"due"}


def test_a_run_that_has_waited_for_too_long_is_given_up():
    plan = decide(state(nodes(), [run("late", max_queue=HOUR)], now=2 * HOUR))
    assert [gave.run for gave in plan.given_up] == ["late"]
    assert not plan.starts
    assert "late" not in plan.waits


def test_runs_leave_a_node_that_goes_away_and_nobody_comes():
    entry = running(run("on-spot"), ("H100-0", (0,)))
    given_state = state(nodes(1), [run("new")], [entry])
    leaving = replace(given_state.nodes[0], leaves_at=30.0)
    plan = decide(replace(given_state, nodes=(leaving,)))
    assert [(p.run, p.within) for p in plan.preemptions] == [("on-spot", 30.0)]
    assert not plan.starts


def test_a_run_that_refuses_spot_nodes_does_not_get_one():
    spot = (replace(nodes(1)[0], spot=True),)
    assert not decide(state(spot, [run("r", spot=False)])).starts
    assert decide(state(spot, [run("r")])).starts


def test_what_can_never_fit_is_said():
    wait = decide(state(nodes(1), [run("huge", 8, 5)])).waits["huge"]
    assert wait.expected == math.inf
    assert wait.reason == "these nodes could never hold it, even idle: it needs 5 x 8 GPUs of any kind"


def test_the_expected_start_is_the_end_of_the_run_before():
    entry = running(run("now", 8, seconds=2 * HOUR), ("H100-0", tuple(range(8))))
    plan = decide(state(nodes(1), [run("next", 8), run("then", 8, seconds=5 * HOUR)], [entry], now=HOUR))
    assert plan.waits["next"].expected == 2 * HOUR
    assert plan.waits["then"].expected == 3 * HOUR


def test_many_starts_are_spread_over_decisions_and_the_plan_says_so():
    plan = decide(state(nodes(20), [run(f"r{i}") for i in range(100)]))
    assert len(plan.starts) == Rules().starts
    assert plan.more


def test_a_node_without_room_in_memory_is_passed_over():
    small = Node("small", "H100", (1000,) * 8, 64.0, 1e9)
    large = Node("large", "H100", (1000,) * 8, 64.0, 1e11)
    asked = run("r", demand=Demand(1, memory=5e9))
    assert started(decide(state((small, large), [asked])))["r"].placements[0].node == "large"
