"""Who yields: the least work lost, nobody without need, nobody of a higher class."""

from dataclasses import replace

from states import HOUR, nodes, run, running, started, state

from orchestrator.scheduler.policy import decide
from orchestrator.scheduler.rules import Rules
from orchestrator.scheduler.values import Quota

NEVER = Rules(preempt_trade=0.0)


def full(*, saved=(0.0, 0.0), **more):
    """Two nodes, each full with one run that started two hours ago."""
    return [
        running(
            run(f"old-{i}", 8, seconds=90 * HOUR, checkpointable=True, **more),
            (f"H100-{i}", tuple(range(8))),
            started=-2 * HOUR,
            saved=saved[i],
        )
        for i in range(2)
    ]


def high(gpus: int = 8, bundles: int = 1, **more):
    """A run of a higher class that has waited a minute."""
    return run("high", gpus, bundles, priority=1, waiting_since=-60.0, **more)


def test_a_higher_class_takes_the_place_where_least_work_is_lost():
    plan = decide(state(nodes(2), [high()], full(saved=(-HOUR, -10.0))), NEVER)
    assert [p.run for p in plan.preemptions] == ["old-1"]
    assert started(plan)["high"].after == ("old-1",)
    assert {place.node for place in started(plan)["high"].placements} == {"H100-1"}
    assert plan.preemptions[0].lost == 8 * (10.0 + NEVER.resume)


def test_victims_that_are_not_needed_keep_running():
    small = [
        running(
            run(f"s{i}", 2, seconds=90 * HOUR, checkpointable=True),
            ("H100-0", (2 * i, 2 * i + 1)),
            started=-2 * HOUR,
            saved=-10.0 * i,
        )
        for i in range(4)
    ]
    plan = decide(state(nodes(1), [high(4)], small), NEVER)
    assert sorted(p.run for p in plan.preemptions) == ["s0", "s1"]


def test_nobody_yields_to_an_equal_without_gain_or_to_a_lower_class():
    equal = replace(high(), priority=0)
    assert not decide(state(nodes(2), [equal], full()), NEVER).preemptions
    assert not decide(state(nodes(2), [equal], full(priority=1))).preemptions


def test_a_short_run_takes_the_place_of_a_long_one_and_a_long_run_does_not():
    short, long = replace(high(seconds=0.5 * HOUR), priority=0), replace(high(seconds=60 * HOUR), priority=0)
    assert len(decide(state(nodes(2), [short], full())).preemptions) == 1
    assert not decide(state(nodes(2), [long], full())).preemptions


def test_who_cannot_save_or_has_yielded_often_or_yields_already_is_left_alone():
    entries = full()
    for left in (
        [replace(entry, run=replace(entry.run, checkpointable=False)) for entry in entries],
        [replace(entry, run=replace(entry.run, preemptions=3)) for entry in entries],
        [replace(entry, yielding=True) for entry in entries],
    ):
        assert not decide(state(nodes(2), [high()], left)).preemptions


def test_a_gang_yields_whole():
    gang = running(
        run("gang", 8, 2, seconds=90 * HOUR, checkpointable=True),
        ("H100-0", tuple(range(8))),
        ("H100-1", tuple(range(8))),
    )
    plan = decide(state(nodes(2), [high(1)], [gang]), NEVER)
    assert [p.run for p in plan.preemptions] == ["gang"]


def test_a_team_takes_back_what_it_lent_and_only_that():
    quotas = {"owner": Quota(8.0), "guest": Quota(8.0)}
    entries = full(team="guest")
    entries[1] = replace(entries[1], started=-HOUR)
    asked = run("mine", 8, team="owner", waiting_since=-60.0)
    plan = decide(state(nodes(2), [asked], entries, quotas=quotas), NEVER)
    assert [p.run for p in plan.preemptions] == ["old-1"]  # the newest is the borrowed one
    more = run("more", 8, 2, team="owner", waiting_since=-60.0)
    assert not decide(state(nodes(2), [more], entries, quotas=quotas), NEVER).preemptions


def test_places_that_are_handed_over_are_not_given_twice():
    entries = full()
    plan = decide(state(nodes(2), [high()], entries), NEVER)
    victim = plan.preemptions[0].run
    after = [replace(entry, yielding=entry.run.id == victim) for entry in entries]
    after.append(running(high(), *((p.node, p.gpus) for p in started(plan)["high"].placements)))
    again = decide(state(nodes(2), [run("next", 1, waiting_since=-60.0)], after), NEVER)
    assert not again.starts
