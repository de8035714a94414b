"""The RayCluster manifest: what KubeRay's own validation demands, and what Kubernetes is asked for."""

import re
from typing import Any

import yaml

from tests.clusters.launchers.clusters import POOLS, cluster, text, wrong


def _manifest(**options: Any) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text(cluster("kuberay", **options)))
    return found


def test_kuberay_gets_the_token_the_version_and_labels_where_it_wants_them() -> None:
    spec = _manifest()["spec"]
    assert spec["authOptions"] == {"mode": "token"}
    assert re.fullmatch(r"\d+\.\d+\.\d+", spec["rayVersion"]), "the token needs it"
    for group in spec["workerGroupSpecs"]:
        assert "labels" not in group["rayStartParams"], "KubeRay refuses them there"
        assert group["minReplicas"] == group["maxReplicas"] == group["replicas"]
    assert [group["labels"] for group in spec["workerGroupSpecs"]] == [
        {"orch.pool": "h100x8"},
        {"orch.pool": "mi300xx8-spot", "rack": "r2"},
    ]


def test_each_vendor_has_its_resource() -> None:
    limits = [
        group["template"]["spec"]["containers"][0]["resources"]["limits"]
        for group in _manifest()["spec"]["workerGroupSpecs"]
    ]
    assert limits == [
        {"cpu": 192, "memory": "2000000000000", "nvidia.com/gpu": 8},
        {"cpu": 192, "memory": "2000000000000", "amd.com/gpu": 8},
    ]


def test_kueue_admits_the_cluster_as_a_whole_where_a_queue_is_named() -> None:
    assert _manifest(queue="team")["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "team"}
    assert "labels" not in _manifest()["metadata"]


def test_the_heads_state_lies_on_a_volume_or_in_redis() -> None:
    kept = "gcsFaultToleranceOptions"
    assert _manifest(gcs="rocksdb")["spec"][kept] == {"backend": "rocksdb", "storage": {"size": "4Gi"}}
    assert _manifest(gcs="redis://redis:6379")["spec"][kept] == {"redisAddress": "redis:6379"}
    assert kept not in _manifest()["spec"]


def test_every_pod_mounts_the_claims() -> None:
    spec = _manifest(claims={"orch-home": "/orch"})["spec"]
    pods = [group["template"]["spec"] for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"])]
    for pod in pods:
        assert pod["volumes"] == [{"name": "orch-home", "persistentVolumeClaim": {"claimName": "orch-home"}}]
        assert pod["containers"][0]["volumeMounts"] == [{"name": "orch-home", "mountPath": "/orch"}]


def test_a_pool_has_its_own_image_and_its_own_machines() -> None:
    pools = [POOLS[0], POOLS[1].model_copy(update={"image": "registry/orch:rocm"})]
    found = yaml.safe_load(text(cluster("kuberay", pools, node_selectors={"h100x8": {"gpu": "h100"}})))
    first, second = (group["template"]["spec"] for group in found["spec"]["workerGroupSpecs"])
    assert (first["containers"][0]["image"], first["nodeSelector"]) == ("registry/orch:1", {"gpu": "h100"})
    assert second["containers"][0]["image"] == "registry/orch:rocm"
    assert "nodeSelector" not in second


def test_the_text_has_no_aliases_that_a_reviewer_would_have_to_follow() -> None:
    assert not re.search(r"[&*]id\d", text(cluster("kuberay", claims={"a": "/a"})))


def test_what_kubernetes_lacks_is_told() -> None:
    pools = [POOLS[0].model_copy(update={"memory": None})]
    found = cluster("kuberay", pools, image=None, node_selectors={"h200": {}}).model_copy(update={"name": "My Lab"})
    assert wrong(found) == [
        "name: 'My Lab' is no name in Kubernetes: lower-case letters, digits and `-`, a letter first",
        "launcher.image: is missing: the head runs in a container",
        "nodes.0.memory: is missing: Kubernetes reserves memory for every node",
        "launcher.node_selectors.h200: there is no pool 'h200'",
    ]
