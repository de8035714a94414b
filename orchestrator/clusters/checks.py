"""What no single field of a cluster file shows: pools that overlap, kinds that nobody knows, quotas, storage."""

import itertools
import re
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from orchestrator import plugins
from orchestrator.catalog.catalog import Catalog
from orchestrator.clusters import launchers, storage
from orchestrator.clusters.cluster import Cluster, NodePool, Quota
from orchestrator.clusters.match import POOL_LABEL, told_apart
from orchestrator.documents import Key
from orchestrator.errors import InputError

Found = Iterator[tuple[Key, str]]
"""(where, what) of each problem."""
_LABEL = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_ADDRESS = re.compile(r"[^\s/]+:\d{1,5}")


def problems(cluster: Cluster, catalog: Catalog) -> Found:
    """Of a cluster as its file says it."""
    yield from _address(cluster)
    for index, pool in enumerate(cluster.nodes):
        for field, text in [*_accelerators(pool, catalog), *_labels(pool), *_hosts(pool)]:
            yield ("nodes", index, *field), text
    yield from _overlaps(cluster)
    yield from _launcher(cluster)
    wrong = storage.problem(cluster.storage) if cluster.storage is not None else None
    if wrong:
        yield ("storage",), wrong


def quota_problems(cluster: Cluster) -> Found:
    """Of the quotas against the nodes that the cluster has."""
    for team, quota in cluster.quotas.items():
        yield from _quota(cluster, ("quotas", team), quota)
    owned = sum(quota.gpus for quota in cluster.quotas.values())
    if owned > cluster.gpus and all(quota.gpus <= cluster.gpus for quota in cluster.quotas.values()):
        yield ("quotas",), f"the teams own {owned:g} accelerators together, and the cluster has {cluster.gpus}"


def _quota(cluster: Cluster, key: Key, quota: Quota) -> Found:
    if quota.gpus > cluster.gpus:
        yield (*key, "gpus"), f"{quota.gpus:g} accelerators are more than the cluster has: {cluster.gpus}"
    elif 0 < quota.gpus < 1:
        yield (
            (*key, "gpus"),
            f"{quota.gpus:g} is less than one accelerator: no run would ever fit in it; 0 only borrows",
        )
    elif quota.borrow is not None and quota.gpus + quota.borrow < 1:
        most = f"{quota.gpus + quota.borrow:g}"
        yield key, f"the team may never hold more than {most} accelerators, and the smallest run takes one"


def _address(cluster: Cluster) -> Found:
    if cluster.address == "local":
        if cluster.launcher:
            yield ("address",), "is missing: where the head will listen, such as 127.0.0.1:6379 if orch runs on it"
        return
    if not _ADDRESS.fullmatch(cluster.address):
        yield (
            ("address",),
            f"{cluster.address!r} is neither `local` nor the host:port of a Ray head, such as 10.0.0.1:6379",
        )
    if not cluster.nodes:
        yield ("nodes",), "is missing: only the node of a `local` cluster is probed"


def _accelerators(pool: NodePool, catalog: Catalog) -> Iterator[tuple[Key, str]]:
    if pool.accelerators and not pool.accelerator:
        yield ("accelerators",), f"{pool.accelerators} of which kind? name it in `accelerator`"
    if pool.accelerator and not pool.accelerators:
        yield ("accelerator",), f"how many {pool.accelerator} has one node? say it in `accelerators`"
    if pool.accelerator:
        try:
            catalog.gpu(pool.accelerator)
        except InputError as error:
            yield ("accelerator",), f"{error.message}; {error.next_step}"
    if pool.island and pool.accelerators % pool.island:
        yield ("island",), f"islands of {pool.island} do not divide the {pool.accelerators} accelerators of a node"


def _labels(pool: NodePool) -> Iterator[tuple[Key, str]]:
    for name, value in pool.labels.items():
        if name.startswith("ray.io/"):
            yield ("labels", name), "labels that begin with ray.io/ are Ray's own"
        elif not re.fullmatch(rf"([-a-z0-9.]+/)?{_LABEL}", name) or not re.fullmatch(_LABEL, value):
            yield ("labels", name), f"{name}={value} is no label: letters, digits, `-`, `_` and `.`, at most 63"
    if pool.labels.get(POOL_LABEL, pool.name) != pool.name:
        yield ("labels", POOL_LABEL), f"is the name of the pool, {pool.name}, or left out"


def _hosts(pool: NodePool) -> Iterator[tuple[Key, str]]:
    if pool.hosts and len(pool.hosts) != pool.count:
        yield ("hosts",), f"{len(pool.hosts)} addresses for a count of {pool.count} nodes"


def _overlaps(cluster: Cluster) -> Found:
    for (first, one), (second, other) in itertools.combinations(enumerate(cluster.nodes), 2):
        if one.name == other.name:
            yield ("nodes", second), f"overlaps with nodes.{first}: both pools are called {one.name}; give one a `name`"
        elif cluster.launcher is None and not told_apart(one, other):  # a launcher sets the label
            tell = f"`labels: {{{POOL_LABEL}: {other.name}}}` here and `labels: {{{POOL_LABEL}: {one.name}}}` there"
            yield (
                ("nodes", second),
                f"overlaps with nodes.{first}: nodes of {one.name} and {other.name} cannot be told apart; write {tell},"
                f" and start Ray on them with `--labels {POOL_LABEL}=...`",
            )


def _launcher(cluster: Cluster) -> Found:
    if cluster.launcher is None or not cluster.nodes:
        return
    name, known = str(cluster.launcher.get("name")), plugins.names(launchers)
    if name not in known:
        yield ("launcher", "name"), f"no launcher {name!r}; {plugins.nearest(name, known)}"
        return
    module = plugins.load(launchers, name)
    try:
        options = module.Options.model_validate(cluster.launcher_options)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            yield ("launcher", *detail["loc"]), _option(name, detail, sorted(module.Options.model_fields))
        return
    yield from module.problems(cluster, options)


def _option(name: str, detail: Any, known: list[str]) -> str:
    if detail["type"] == "extra_forbidden":
        return f"unknown option of {name}; {plugins.nearest(str(detail['loc'][-1]), known)}"
    if detail["type"] == "missing":
        return f"is missing: {name} needs it"
    return str(detail["msg"])
