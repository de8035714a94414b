"""What holds for every file of launchers/."""

import pytest

from orchestrator import plugins
from orchestrator.clusters import launchers
from tests.clusters.launchers.clusters import OPTIONS, cluster, text, wrong

NAMES = plugins.names(launchers)


def test_the_known_launchers_are_there() -> None:
    assert sorted(OPTIONS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_node_gets_what_ray_lacks_by_default(name: str) -> None:
    found = text(cluster(name))
    for pool in ("h100x8", "mi300xx8-spot"):
        assert f"orch.pool={pool}" in found or f"orch.pool: {pool}" in found
    for variable, value in (
        ("RAY_health_check_period_ms", "1000"),
        ("RAY_health_check_failure_threshold", "3"),
        ("RAY_gcs_rpc_server_reconnect_timeout_s", "600"),
    ):
        assert f"{variable}={value}" in found or f"name: {variable}\n            value: '{value}'" in found
    assert "RAY_AUTH_MODE=token" in found or "mode: token" in found


@pytest.mark.parametrize("name", NAMES)
def test_rocr_visible_devices_is_never_set(name: str) -> None:
    found = text(cluster(name))
    assert found.count("ROCR_VISIBLE_DEVICES") == found.count("unset ROCR_VISIBLE_DEVICES")


@pytest.mark.parametrize("name", NAMES)
def test_the_clusters_of_these_tests_have_no_problem(name: str) -> None:
    assert wrong(cluster(name)) == []


@pytest.mark.parametrize("name", NAMES)
def test_the_head_keeps_its_state_in_redis_where_the_file_says_so(name: str) -> None:
    assert "redis-1:6379" in text(cluster(name, gcs="redis://redis-1:6379"))
    assert "rocksdb" not in text(cluster(name))


@pytest.mark.parametrize("name", NAMES)
def test_an_option_that_no_launcher_has_is_named_with_the_nearest(name: str) -> None:
    (found,) = wrong(cluster(name, gsc="/x"))
    assert found.startswith(f"launcher.gsc: unknown option of {name}; did you mean 'gcs'?")


@pytest.mark.parametrize("name", NAMES)
def test_a_place_for_the_heads_state_that_cannot_be_is_refused(name: str) -> None:
    (found,) = wrong(cluster(name, gcs="disk"))
    assert found.startswith("launcher.gcs: 'disk' is neither")


@pytest.mark.parametrize("name", NAMES)
def test_commands_name_the_file_and_the_program(name: str) -> None:
    module, found = plugins.load(launchers, name), cluster(name)
    (file,) = module.files(found, module.Options.model_validate(found.launcher_options))
    assert module.up_command(found)[-1] == file
    assert module.down_command(found)[0] in ("ray", "kubectl", "scancel")
