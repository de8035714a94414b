"""Results of benchmarks on a real SQLite file: found by id, prefix or `latest`, and baselines."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator.bench.result import Result, Target
from orchestrator.errors import InputError
from orchestrator.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def _result(id: str, created: float = 1.0, **fields: Any) -> dict[str, Any]:
    target = Target(name="gguf", url="http://127.0.0.1:1/v1", model="m")
    fields = {"name": "demo", "orch_version": "0.1.0", **fields}
    return Result(id=id, created=created, targets=[target], cells=[], **fields).model_dump(mode="json")


def test_a_result_comes_back_as_it_was_given(store: Store) -> None:
    given = _result("demo-1", settings={"text": "Grüße 🦙", "numbers": [0.1, 1e-300]})
    store.add_benchmark(given)
    assert store.benchmark("demo-1") == given
    assert Result.model_validate(store.benchmark("demo-1")).settings == given["settings"]


def test_the_newest_come_first_and_can_be_chosen_by_run_service_and_name(store: Store) -> None:
    store.add_benchmark(_result("a", 3.0, run="r1", service="legal"))
    store.add_benchmark(_result("b", 1.0, run="r2", service="legal", name="other"))
    store.add_benchmark(_result("c", 2.0))

    def found(**wanted: Any) -> list[str]:
        return [result["id"] for result in store.benchmarks(**wanted)]

    assert found() == ["a", "c", "b"]
    assert found(limit=2) == ["a", "c"]
    assert found(run="r2") == ["b"]
    assert found(service="legal") == ["a", "b"]
    assert found(name="demo") == ["a", "c"]
    assert store.benchmark("latest")["id"] == "a"


def test_the_beginning_of_an_id_is_enough_while_only_one_begins_so(store: Store) -> None:
    for id in ("demo-10", "demo-1", "demo-2", "100%_x"):
        store.add_benchmark(_result(id))
    assert store.benchmark("demo-2")["id"] == "demo-2"
    assert store.benchmark("10")["id"] == "100%_x"
    assert store.benchmark("demo-1")["id"] == "demo-1", "a whole id wins over being the beginning of another"
    with pytest.raises(InputError, match=r"several benchmarks begin with 'demo': demo-\d+, demo-\d+"):
        store.benchmark("demo")
    with pytest.raises(InputError, match="no benchmark '%'"):
        store.benchmark("%")


def test_a_name_stands_for_the_newest_of_that_name(store: Store) -> None:
    store.add_benchmark(_result("b-1", 1.0, name="legal"))
    store.add_benchmark(_result("b-2", 2.0, name="legal"))
    store.add_benchmark(_result("b-3", 3.0))
    assert store.benchmark("legal")["id"] == "b-2"


def test_an_unknown_id_names_the_near_ones_and_the_next_step(store: Store) -> None:
    with pytest.raises(InputError, match=r"none yet\n.*orch bench run"):
        store.benchmark("latest")
    store.add_benchmark(_result("legal-20261124"))
    with pytest.raises(InputError, match=r"no benchmark 'lgal-20261124' \(the nearest: legal-20261124\)"):
        store.benchmark("lgal-20261124")
    with pytest.raises(InputError, match=r"\(the newest: legal-20261124\)\n.*orch bench list"):
        store.benchmark("zzz")


def test_a_sweep_that_goes_on_replaces_its_own_result(store: Store) -> None:
    store.add_benchmark(_result("a", 1.0))
    store.add_benchmark(_result("b", 2.0))
    store.add_benchmark(_result("a", 1.0, settings={"cells": 2}))
    assert [result["id"] for result in store.benchmarks()] == ["b", "a"]
    assert store.benchmark("a")["settings"] == {"cells": 2}


def test_a_baseline_is_set_and_replaced(store: Store) -> None:
    assert store.baseline("legal") is None
    store.add_benchmark(_result("one", 1.0))
    store.add_benchmark(_result("two", 2.0))
    assert store.set_baseline("legal", "latest") == "two"
    assert store.set_baseline("legal", "on") == "one"
    assert store.baseline("legal") == "one"
    assert [(found.name, found.benchmark) for found in store.baselines()] == [("legal", "one")]
    with pytest.raises(InputError, match="no benchmark 'three'"):
        store.set_baseline("legal", "three")
    assert store.baseline("legal") == "one"


def test_a_result_is_an_event_of_its_run(store: Store) -> None:
    store.add_benchmark(_result("a", run="r1", service="legal"))
    [event] = store.events(run="r1")
    assert (event.kind, event.data["message"], event.data["service"]) == ("benchmark.result_kept", "a", "legal")
