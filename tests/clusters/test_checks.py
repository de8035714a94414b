"""Bad cluster files: every problem at once, with its line and what to write instead."""

from pathlib import Path

import pytest

from orchestrator.clusters.load import load_cluster
from orchestrator.errors import RecipeError

H100 = "{count: 2, cpus: 96, accelerator: H100, accelerators: 8"


def _problems(folder: Path, *lines: str) -> list[str]:
    file = folder / "lab.yaml"
    file.write_text("\n".join(["name: lab", "address: 10.0.0.1:6379", *lines]) + "\n")
    with pytest.raises(RecipeError) as caught:
        load_cluster(file, folder)
    return [line.strip().removeprefix(f"{file}:") for line in caught.value.message.splitlines()[1:]]


def test_pools_of_one_name_overlap(tmp_path: Path) -> None:
    assert _problems(tmp_path, "nodes:", f"  - {H100}}}", f"  - {H100}}}") == [
        "5: nodes.1: overlaps with nodes.0: both pools are called h100x8; give one a `name`"
    ]


def test_pools_whose_nodes_cannot_be_told_apart_overlap(tmp_path: Path) -> None:
    assert _problems(tmp_path, "nodes:", f"  - {H100}, name: one}}", f"  - {H100}, name: two}}") == [
        "5: nodes.1: overlaps with nodes.0: nodes of one and two cannot be told apart; write"
        " `labels: {orch.pool: two}` here and `labels: {orch.pool: one}` there,"
        " and start Ray on them with `--labels orch.pool=...`"
    ]


def test_what_that_error_says_to_write_is_accepted(tmp_path: Path) -> None:
    file = tmp_path / "lab.yaml"
    pools = "".join(f"  - {H100}, name: {name}, labels: {{orch.pool: {name}}}}}\n" for name in ("one", "two"))
    file.write_text(f"name: lab\naddress: 10.0.0.1:6379\nnodes:\n{pools}")
    assert [pool.name for pool in load_cluster(file).nodes] == ["one", "two"]


def test_an_unknown_accelerator_is_named_with_the_nearest_of_the_catalog(tmp_path: Path) -> None:
    (found,) = _problems(tmp_path, "nodes:", "  - {cpus: 8, accelerator: H1000, accelerators: 8}")
    assert found.startswith("4: nodes.0.accelerator: the catalog has no GPU 'H1000'; nearest: H100")
    assert "catalog/*.yaml in your project adds some" in found


def test_an_accelerator_of_the_users_own_catalog_is_known(tmp_path: Path) -> None:
    (tmp_path / "catalog").mkdir()
    own = "gpus:\n- {id: z9, kind: Z9, name: Z9, vendor: amd, arch: z, memory_nominal: 80GB, memory_visible: 78GB}\n"
    (tmp_path / "catalog" / "own.yaml").write_text(own)
    file = tmp_path / "lab.yaml"
    file.write_text("name: lab\naddress: h:6379\nnodes: [{cpus: 8, accelerator: Z9, accelerators: 8}]\n")
    assert load_cluster(file, tmp_path).accelerators() == {"Z9": 8}


def test_a_quota_is_one_accelerator_at_least_and_what_the_cluster_has_at_most(tmp_path: Path) -> None:
    quotas = ["quotas:", "  small: {gpus: 0.5}", "  never: {gpus: 0, borrow: 0}", "  large: {gpus: 17}"]
    assert _problems(tmp_path, f"nodes: [{H100}}}]", *quotas) == [
        "5: quotas.small.gpus: 0.5 is less than one accelerator: no run would ever fit in it; 0 only borrows",
        "6: quotas.never: the team may never hold more than 0 accelerators, and the smallest run takes one",
        "7: quotas.large.gpus: 17 accelerators are more than the cluster has: 16",
    ]


def test_the_teams_cannot_own_more_than_there_is(tmp_path: Path) -> None:
    assert _problems(tmp_path, f"nodes: [{H100}}}]", "quotas: {a: {gpus: 12}, b: {gpus: 8}}") == [
        "4: quotas: the teams own 20 accelerators together, and the cluster has 16"
    ]


@pytest.mark.parametrize(
    ("uri", "problem"),
    [
        ("ftp://host/x", "no storage has the scheme 'ftp'; (known: file, s3, gs, az)"),
        ("s3n://bucket", "no storage has the scheme 's3n'; did you mean 's3'? (known: file, s3, gs, az)"),
        ("artifacts", "'artifacts' needs an absolute path, which is the same folder on every node"),
        ("s3://", "'s3://' names no bucket"),
    ],
)
def test_a_storage_that_cannot_be_is_refused(tmp_path: Path, uri: str, problem: str) -> None:
    assert _problems(tmp_path, f"nodes: [{H100}}}]", f"storage: {uri}") == [f"4: storage: {problem}"]


def test_counts_prices_and_unknown_keys(tmp_path: Path) -> None:
    pool = "{count: 0, cpus: 0, accelerator: H100, accelerators: 99, usd_per_hour: -3, spott: true}"
    assert _problems(tmp_path, "nodes:", f"  - {pool}", "quotas: {ml: {gpu: 8}}") == [
        "4: nodes.0.count: input should be greater than or equal to 1; found 0",
        "4: nodes.0.cpus: input should be greater than or equal to 1; found 0",
        "4: nodes.0.accelerators: input should be less than or equal to 16; found 99",
        '4: nodes.0.usd_per_hour: -3 is not usd; write it like "$40", "0.60" or "40 USD"',
        "4: unknown key 'nodes.0.spott'; did you mean 'spot'? (known: accelerator, accelerators, count, cpus, hosts,"
        " image, instance, island, labels, memory, name, price_source, spot, usd_per_hour)",
        "5: missing key 'quotas.ml.gpus'",
        "5: unknown key 'quotas.ml.gpu'; did you mean 'gpus'? (known: borrow, gpus)",
    ]


def test_what_contradicts_itself_in_a_pool(tmp_path: Path) -> None:
    pools = [
        "  - {cpus: 8, accelerators: 8}",
        "  - {cpus: 8, accelerator: H100}",
        f"  - {H100}, island: 3, hosts: [a], labels: {{orch.pool: other, ray.io/x: y, rack: a b}}}}",
    ]
    assert _problems(tmp_path, "nodes:", *pools) == [
        "4: nodes.0.accelerators: 8 of which kind? name it in `accelerator`",
        "5: nodes.1.accelerator: how many H100 has one node? say it in `accelerators`",
        "6: nodes.2.island: islands of 3 do not divide the 8 accelerators of a node",
        "6: nodes.2.labels.ray.io/x: labels that begin with ray.io/ are Ray's own",
        "6: nodes.2.labels.rack: rack=a b is no label: letters, digits, `-`, `_` and `.`, at most 63",
        "6: nodes.2.labels.orch.pool: is the name of the pool, h100x8, or left out",
        "6: nodes.2.hosts: 1 addresses for a count of 2 nodes",
    ]


def test_an_address_is_local_or_host_and_port_and_has_pools(tmp_path: Path) -> None:
    file = tmp_path / "lab.yaml"
    file.write_text("name: lab\naddress: ray://10.0.0.1:10001\n")
    with pytest.raises(RecipeError) as caught:
        load_cluster(file)
    assert "lab.yaml:2: address: 'ray://10.0.0.1:10001' is neither `local` nor the host:port" in caught.value.message
    assert "nodes: is missing: only the node of a `local` cluster is probed" in caught.value.message


def test_a_launcher_that_nobody_knows_and_one_that_lacks_an_option(tmp_path: Path) -> None:
    assert _problems(tmp_path, f"nodes: [{H100}}}]", "launcher: {name: asw, region: us-east-1}") == [
        "4: launcher.name: no launcher 'asw'; did you mean 'aws'? (known: aws, gcp, kuberay, on_premises, slurm)"
    ]
    assert _problems(tmp_path, f"nodes: [{H100}, instance: p5.48xlarge}}]", "launcher: {name: aws}") == [
        "4: launcher.region: is missing: aws needs it"
    ]


def test_pools_that_a_launcher_labels_need_nothing_else_to_be_told_apart(tmp_path: Path) -> None:
    file = tmp_path / "lab.yaml"
    pools = "".join(f"  - {H100}, name: {name}, instance: p5.48xlarge}}\n" for name in ("one", "two"))
    file.write_text(f"name: lab\naddress: h:6379\nlauncher: {{name: aws, region: us-east-1}}\nnodes:\n{pools}")
    assert [pool.name for pool in load_cluster(file).nodes] == ["one", "two"]


def test_a_launcher_needs_the_address_that_its_head_will_have(tmp_path: Path) -> None:
    file = tmp_path / "lab.yaml"
    file.write_text(f"name: lab\nnodes: [{H100}}}]\nlauncher: {{name: slurm}}\n")
    with pytest.raises(RecipeError, match="address: is missing: where the head will listen"):
        load_cluster(file)
