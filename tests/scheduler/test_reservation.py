"""The earliest time is the first at which it fits; what is spare never includes what is kept."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from states import HOUR, busy, demands, nodes, run, running, state

from orchestrator.scheduler.reservation import Releases, spare
from orchestrator.scheduler.tables import Cluster
from orchestrator.scheduler.values import Demand


@given(busy(), demands)
@settings(max_examples=60, deadline=None)
def test_the_earliest_time_is_the_first_end_at_which_it_fits(given_state, demand):
    cluster = Cluster(given_state.nodes)
    ends = np.array([entry.ends for entry in given_state.running])
    releases = Releases(cluster, given_state.running, ends)
    anywhere = np.ones(len(given_state.nodes), bool)
    fitting = [end for end in sorted(ends) if releases.by(end).slots(demand, anywhere).sum() >= demand.bundles]
    assert releases.earliest(demand, anywhere) == (fitting[0] if fitting else math.inf)


@given(st.lists(st.integers(1, 50), min_size=30, max_size=60))
@settings(max_examples=20, deadline=None)
def test_it_is_found_among_many_ends(hours):
    entries = [running(run(f"r{i}", seconds=h * HOUR), (f"H100-{i // 8}", (i % 8,))) for i, h in enumerate(hours)]
    given_state = state(nodes(8), [], entries)
    releases = Releases(Cluster(given_state.nodes), entries, np.array([entry.ends for entry in entries]))
    anywhere = np.ones(8, bool)
    idle = 8 - math.ceil(len(hours) / 8)
    last = sorted(max(h for i, h in enumerate(hours) if i // 8 == node) for node in range(8 - idle))
    assert releases.earliest(Demand(8, bundles=idle + 1), anywhere) == last[0] * HOUR


def test_what_is_spare_is_free_now_and_not_kept_then():
    now = Cluster(nodes(1))
    then = now.copy()
    then.take(Demand(2, cpus=60.0), 0, [0, 1])
    left = spare(now, then)
    assert left.free[0].tolist() == [0, 0, *[1000] * 6]
    assert left.cpus[0] == 4.0
