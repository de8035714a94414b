"""orch: from an open-weight model and a dataset to a served, measured, reversible release.

The names below are the front door; each is loaded when it is first used, so that `import orchestrator` is light.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "OrchError": "orchestrator.errors",
    "InputError": "orchestrator.errors",
    "GateFailedError": "orchestrator.errors",
    "Store": "orchestrator.store.store",
    "Recipe": "orchestrator.recipe.recipe",
    "load_recipe": "orchestrator.recipe.load",
    "Cluster": "orchestrator.clusters.cluster",
    "load_cluster": "orchestrator.clusters.load",
    "Plan": "orchestrator.planner.plan",
    "make_plan": "orchestrator.controller.planning",
    "rollback": "orchestrator.serving.releases",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
