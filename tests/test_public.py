"""The front door: these names and no others, and each can be imported."""

import orchestrator


def test_the_public_names_are_these() -> None:
    assert orchestrator.__all__ == [
        "Cluster",
        "GateFailedError",
        "InputError",
        "OrchError",
        "Plan",
        "Recipe",
        "Store",
        "load_cluster",
        "load_recipe",
        "make_plan",
        "rollback",
    ]


def test_each_public_name_is_there() -> None:
    assert [name for name in orchestrator.__all__ if getattr(orchestrator, name, None) is None] == []
