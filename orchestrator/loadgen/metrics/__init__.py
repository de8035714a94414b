"""Metrics of the load generator: one file, one metric, with its formula and unit.

A latency of single requests has `UNIT` and `values(record) -> list[float]`, several for one request where it has
several (ITL), none where it has no such thing. `latencies()` finds these files. The other files are figures over many
records, each with `UNIT` and functions of their own. All are pure; nanoseconds of the records become seconds here.
"""

import sys
from collections.abc import Callable, Mapping
from functools import cache

from orchestrator import plugins
from orchestrator.loadgen.record import Record


@cache
def latencies() -> Mapping[str, Callable[[Record], list[float]]]:
    """Name -> `values` of every latency in this folder."""
    here = sys.modules[__name__]
    modules = {name: plugins.load(here, name) for name in plugins.names(here)}
    return {name: module.values for name, module in modules.items() if hasattr(module, "values")}
