"""Small clusters and queues for the tests of the policy, and hypothesis strategies that make them."""

from collections import Counter
from collections.abc import Iterable

from hypothesis import strategies as st

from orchestrator.scheduler.decisions import Plan, Start
from orchestrator.scheduler.policy import decide
from orchestrator.scheduler.values import ANY, WHOLE, Demand, Node, Option, Placement, Run, Running, State

HOUR = 3600.0


def nodes(count: int = 2, gpus: int = 8, kind: str = "H100") -> tuple[Node, ...]:
    """Idle nodes."""
    return tuple(Node(f"{kind}-{i}", kind, (WHOLE,) * gpus, 8.0 * gpus, 1e9 * gpus) for i in range(count))


def run(
    name: str, gpus: int = 1, bundles: int = 1, seconds: float = HOUR, kinds: Iterable[str] = (ANY,), **more
) -> Run:
    """A run of whole GPUs."""
    demand = more.pop("demand", Demand(gpus, bundles=bundles))
    return Run(name, demand, tuple(Option(kind, seconds) for kind in kinds), **more)


def running(entry: Run, *places: tuple[str, tuple[int, ...]], started: float = 0.0, **more) -> Running:
    """A run at its place, which ends by its estimate."""
    ends = more.pop("ends", started + entry.seconds)
    return Running(entry, tuple(Placement(node, gpus) for node, gpus in places), started, ends, **more)


def occupied(cluster: tuple[Node, ...], entries: Iterable[Running]) -> tuple[Node, ...]:
    """The nodes without what these hold."""
    for entry in entries:
        cluster = take(cluster, entry.run.demand, entry.placements)
    return cluster


def take(cluster: tuple[Node, ...], demand: Demand, placements: Iterable[Placement]) -> tuple[Node, ...]:
    """The nodes without these bundles; what is held twice is negative."""
    found = {node.name: node for node in cluster}
    for place in placements:
        node = found[place.node]
        free = tuple(f - demand.milli * (gpu in place.gpus) for gpu, f in enumerate(node.free))
        left = (node.cpus - demand.cpus, node.memory - demand.memory)
        found[node.name] = Node(node.name, node.kind, free, *left, node.island, node.spot, node.leaves_at)
    return tuple(found.values())


def state(
    cluster: tuple[Node, ...], queued: Iterable[Run], entries: Iterable[Running] = (), now=0.0, quotas=None
) -> State:
    """The state with the nodes as those who run leave them."""
    entries = tuple(entries)
    return State(now, occupied(cluster, entries), tuple(queued), entries, quotas or {})


def started(plan: Plan) -> dict[str, Start]:
    """The starts by run."""
    return {start.run: start for start in plan.starts}


def gone(given: State, plan: Plan) -> State:
    """The state once all who were told to yield have gone, before anybody starts."""
    victims = {preemption.run for preemption in plan.preemptions}
    cluster = given.nodes
    for entry in given.running:
        if entry.run.id in victims:
            cluster = _give_back(cluster, entry)
    left = tuple(entry for entry in given.running if entry.run.id not in victims)
    return State(given.now, cluster, given.queued, left, given.quotas)


def _give_back(cluster: tuple[Node, ...], entry: Running) -> tuple[Node, ...]:
    demand, found = entry.run.demand, []
    for node in cluster:
        here = [place for place in entry.placements if place.node == node.name]
        held = Counter(gpu for place in here for gpu in place.gpus)
        free = tuple(f + demand.milli * held[gpu] for gpu, f in enumerate(node.free))
        left = (node.cpus + demand.cpus * len(here), node.memory + demand.memory * len(here))
        found.append(Node(node.name, node.kind, free, *left, node.island, node.spot, node.leaves_at))
    return tuple(found)


demands = st.one_of(
    st.builds(Demand, st.integers(1, 8), st.just(WHOLE), st.sampled_from([0.0, 4.0]), st.just(1e8), st.integers(1, 3)),
    st.builds(Demand, st.just(1), st.sampled_from([100, 250, 300, 500, 750]), st.sampled_from([0.0, 2.0])),
    st.builds(Demand, st.just(0), st.just(WHOLE), st.sampled_from([1.0, 16.0])),
)
kinds = st.sampled_from([(ANY,), ("H100",), ("A100",), ("A100", "H100")])
clusters = st.builds(lambda a, b: nodes(a, 8, "H100") + nodes(b, 4, "A100"), st.integers(1, 3), st.integers(0, 3))


@st.composite
def busy(draw: st.DrawFn, quotas=None) -> State:
    """A state in which some runs have been placed by the policy itself, at different times, and others wait."""
    cluster = draw(clusters)
    first = [draw(waiting(f"r{i}")) for i in range(draw(st.integers(0, 12)))]
    plan = decide(State(0.0, cluster, tuple(first), (), quotas or {}))
    runs = {entry.id: entry for entry in first}
    entries = [
        Running(runs[s.run], s.placements, -draw(st.floats(0, 9)) * HOUR, draw(st.floats(0.1, 9)) * HOUR)
        for s in plan.starts
    ]
    queued = [draw(waiting(f"q{i}")) for i in range(draw(st.integers(1, 12)))]
    return state(cluster, queued, entries, now=0.0, quotas=quotas)


@st.composite
def waiting(draw: st.DrawFn, name: str) -> Run:
    """A run of any size that may have waited for long."""
    return Run(
        name,
        draw(demands),
        tuple(Option(kind, draw(st.sampled_from([0.1, 1.0, 8.0])) * HOUR) for kind in draw(kinds)),
        team=draw(st.sampled_from(["a", "b", "c"])),
        priority=draw(st.integers(0, 1)),
        waiting_since=-draw(st.sampled_from([0.0, 1.0, 50.0])) * HOUR,
        checkpointable=draw(st.booleans()),
    )
