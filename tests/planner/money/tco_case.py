"""Assumptions of a whole case for tests, and random ones."""

from typing import Any

from hypothesis import strategies as st

from orchestrator.catalog.assumptions import Assumptions, changed, shipped
from orchestrator.planner.money.comparison import numbers

DAY = "2026-11-24"
GIVEN = {
    "workload.tokens_per_month": 1.5e9,
    "workload.input_share": 0.75,
    "serving.tokens_per_s_per_replica": 4000.0,
    "serving.gpus_per_replica": 2.0,
    "gpu.on_demand_usd_per_hour": 3.0,
    "gpu.reserved_usd_per_hour": 2.0,
    "gpu.spot_usd_per_hour": 1.0,
    "api.input_usd_per_million": 2.5,
    "api.cached_usd_per_million": 1.25,
    "api.output_usd_per_million": 10.0,
}


def assumptions(**other: float) -> Assumptions:
    """The shipped ones with a case; `staff__run_fte=1` changes one."""
    found = shipped()
    for name, value in {**GIVEN, **{key.replace("__", "."): value for key, value in other.items()}}.items():
        found = changed(found, name, value, "test", DAY)
    return found


def values(**other: float) -> dict[str, float]:
    """Their numbers."""
    return dict(numbers(assumptions(**other)))


def cases() -> st.SearchStrategy[dict[str, float]]:
    """Numbers of random cases: money, load and fleet vary over orders of magnitude."""
    ranges: dict[str, Any] = {
        "workload.tokens_per_month": st.floats(1e5, 1e12),
        "workload.input_share": st.floats(0, 1),
        "workload.peak_to_mean": st.one_of(st.just(1.0), st.floats(1, 20)),
        "serving.tokens_per_s_per_replica": st.floats(10, 1e5),
        "serving.gpus_per_replica": st.integers(1, 8),
        "serving.min_replicas": st.integers(1, 4),
        "serving.spare_replicas": st.integers(0, 2),
        "serving.peak_utilisation": st.floats(0.1, 1),
        "gpu.on_demand_usd_per_hour": st.floats(0.1, 20),
        "gpu.reserved_share": st.floats(0, 1),
        "staff.run_fte": st.floats(0, 5),
        "api.run_fte": st.floats(0, 5),
        "api.input_usd_per_million": st.floats(0.01, 100),
        "api.output_usd_per_million": st.floats(0.01, 100),
        "api.retry_share": st.floats(0, 0.2),
        "api.cache_hit_share": st.floats(0, 1),
        "egress.usd_per_gb": st.floats(0, 0.2),
    }
    base = values()
    return st.fixed_dictionaries(ranges).map(lambda chosen: {**base, **{k: float(v) for k, v in chosen.items()}})
