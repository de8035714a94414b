"""From settings to cells: what there is to measure, in which order, under which ids."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from orchestrator.bench.sweep import SweepPlan, cell, cells, duration_s, in_order, num_requests, warmup_requests
from orchestrator.loadgen.workload.spec import Workload

CHAT = {"name": "chat", "synthetic": {"input_tokens": 100}}
LONG = {"name": "long", "synthetic": {"input_tokens": 4000}}


def plan(**settings: object) -> SweepPlan:
    return SweepPlan.model_validate(settings)


def test_every_target_workload_and_load_is_a_cell() -> None:
    found = cells(plan(workloads=[CHAT, LONG], concurrency=[1, 8], request_rate=[2.5]), ["a", "b"])
    assert sorted((c.target, c.workload.title, c.concurrency or 0, c.rate or 0) for c in found) == sorted(
        (target, title, *load) for target in "ab" for title in ("chat", "long") for load in ((1, 0), (8, 0), (0, 2.5))
    )
    assert len({c.id for c in found}) == 12


def test_by_default_there_is_one_stream_and_eight() -> None:
    assert sorted(c.concurrency or 0 for c in cells(plan(), ["a"])) == [1, 8]
    assert [(c.concurrency, c.rate) for c in cells(plan(request_rate=3), ["a"])] == [(None, 3.0)]


def test_a_trace_keeps_its_own_times_unless_loads_are_given() -> None:
    trace = {"trace": "azure.csv"}
    assert [(c.mode, c.concurrency, c.rate) for c in cells(plan(workload=trace), ["a"])] == [("open", None, None)]
    assert [c.rate for c in cells(plan(workload=trace, request_rate=[4]), ["a"])] == [4]


@given(st.integers(0, 1000), st.permutations(["a", "b", "c", "d"]))
def test_the_cells_of_a_target_stand_together_and_only_the_seed_decides_the_order(
    seed: int, targets: list[str]
) -> None:
    wanted = plan(concurrency=[1, 2, 4, 8, 16], seed=seed)
    found = cells(wanted, targets)
    order = list(dict.fromkeys(c.target for c in found))
    assert [c.target for c in found] == [target for target in order for _ in range(5)]
    assert order == in_order(wanted, sorted(targets))
    assert [c.id for c in found] == [c.id for c in cells(wanted, sorted(targets))]


def test_seeds_give_different_orders() -> None:
    orders = {
        tuple(c.concurrency for c in cells(plan(concurrency=[1, 2, 4, 8], seed=seed), ["a"])) for seed in range(20)
    }
    assert len(orders) > 10


def test_the_order_leaves_the_chance_of_others_alone() -> None:
    random.seed(1)
    before = random.random()
    random.seed(1)
    cells(plan(), ["a"])
    assert random.random() == before


def test_an_id_stands_for_all_that_makes_the_numbers_and_for_nothing_else() -> None:
    def ident(target: str = "a", load: tuple[int | None, float | None, int] = (8, None, 0), **settings: object) -> str:
        wanted = plan(**{"workload": CHAT, **settings})
        return cell(wanted, target, wanted.asked[0], *load).id

    assert ident() == ident(concurrency=[8, 64], max_errors=3, cell_timeout="2h"), "other cells and patience"
    different = [
        ident(),
        ident("b"),
        ident(load=(None, 8, 0)),
        ident(load=(8, None, 1)),
        ident(workload=LONG),
        ident(seed=1),
        ident(max_tokens=7),
        ident(num_requests=50),
        ident(slo={"ttft": 1}),
        ident(warmup=3),
    ]
    assert len(set(different)) == len(different)


def test_how_long_a_cell_is() -> None:
    closed, opened = (cell(plan(), "a", Workload(), *load) for load in ((8, None), (None, 4.0)))
    slow, slowest = (cell(plan(), "a", Workload(), None, rate) for rate in (0.5, 0.01))
    assert [num_requests(plan(), c) for c in (closed, opened)] == [32, None]
    assert num_requests(plan(), cell(plan(), "a", Workload(), 100)) == 400
    assert [duration_s(plan(), c) for c in (closed, opened, slow, slowest)] == [None, 60, 128, 600]
    assert num_requests(plan(duration="10s"), closed) is None
    assert num_requests(plan(duration="10s", num_requests=5), closed) == 5
    assert duration_s(plan(num_requests=20), opened) == 5
    assert [warmup_requests(plan(), c) for c in (cell(plan(), "a", Workload(), 1), closed, opened)] == [4, 8, 0]
    assert warmup_requests(plan(warmup=0), closed) == 0


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"sweep": "auto", "concurrency": [1]}, "sweep: auto chooses the loads itself"),
        ({"sweep": "always"}, "sweep"),
        ({"concurrency": [1, 1]}, "repeats one"),
        ({"concurrency": [0]}, "greater than or equal to 1"),
        ({"request_rate": [0]}, "greater than 0"),
        ({"workloads": [CHAT, CHAT]}, "each workload needs a name of its own; found chat, chat"),
        ({"workloads": [CHAT], "workload": LONG}, "either workload or workloads"),
        ({"workload": CHAT | {"arrivals": "constant"}}, "give request_rate for chat"),
        ({"duration": 0}, "above 0 s"),
        ({"concurency": [1]}, "concurency"),
    ],
)
def test_what_cannot_be_meant_is_refused(settings: dict[str, object], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        plan(**settings)


def test_a_stored_plan_reads_back() -> None:
    wanted = plan(workloads=[CHAT, LONG], sweep="auto", slo={"ttft": "500ms"}, duration="30s")
    assert SweepPlan.model_validate_json(wanted.model_dump_json()) == wanted
