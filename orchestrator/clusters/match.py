"""Which pool of a cluster a node of Ray belongs to (pure).

    found = match(cluster.nodes, node["Labels"], node["Resources"])
    found.pool or found.reason

First the label `orch.pool`, which all that `orch clusters up` writes sets. Without it: the kind of accelerator as far
as the node's labels tell it, the number of accelerators, the labels of the pool, and the number of CPUs, where these
leave one pool. Ray's own words for a kind (`AMD-Instinct-MI300X-OAM`) change from version to version, and only the
family in them is read.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from orchestrator import gpus
from orchestrator.clusters.cluster import NodePool

POOL_LABEL = "orch.pool"
"""Its value is the name of the pool."""
KIND_LABELS = ("gpu.family", "ray.io/accelerator-type")
"""Labels that tell a kind, the surest first."""
_RESOURCE = "accelerator_type:"
"""Ray's resource of a node with that kind, such as `accelerator_type:H100`."""


class Match(NamedTuple):
    """The pool of a node, or why it has none."""

    pool: NodePool | None
    reason: str = ""


def match(pools: Sequence[NodePool], labels: Mapping[str, str], resources: Mapping[str, float]) -> Match:
    """The pool of the node that has these labels and these resources in Ray."""
    if POOL_LABEL in labels:
        return _named(pools, labels[POOL_LABEL])
    kind, count, cpus = kind_of(labels, resources), resources.get("GPU", 0), resources.get("CPU", 0)
    has = f"{count:g} {kind or 'accelerators of a kind that it does not tell'}" if count else "no accelerator"
    fitting = [pool for pool in pools if _fits(pool, kind, count) and not _contradicts(pool, labels)]
    if not fitting:
        return Match(None, f"it has {has}; the pools are {_listed(pools)}")
    tests: tuple[Callable[[NodePool], bool], ...] = (
        lambda pool: _carries(pool, labels),
        lambda pool: pool.cpus == cpus,
    )
    for sure in tests:
        fitting = [pool for pool in fitting if sure(pool)] or fitting
    if len(fitting) > 1:
        told = f"only a label {POOL_LABEL}=NAME can tell"
        return Match(None, f"it has {has} and {cpus:g} CPUs, as in the pools {_listed(fitting)}: {told}")
    return Match(fitting[0])


def kind_of(labels: Mapping[str, str], resources: Mapping[str, float]) -> str | None:
    """The kind of accelerator that a node tells, in its own words; None: it tells none."""
    told = [labels[name] for name in KIND_LABELS if labels.get(name)]
    told += [name.removeprefix(_RESOURCE) for name in resources if name.startswith(_RESOURCE)]
    return told[0] if told else None


def same_kind(one: str, other: str) -> bool:
    """Whether two names can mean the same kind: the same family, and the same memory where both tell one."""
    (family, size), (of_other, other_size) = _family(one), _family(other)
    return family == of_other and (not size or not other_size or size == other_size)


def _family(name: str) -> tuple[str, str | None]:
    """`A100-80G` is (A100, 80), `AMD-Instinct-MI300X-OAM` (MI300X, None)."""
    words = re.split(r"[^A-Z0-9]+", name.upper())
    sizes = (re.fullmatch(r"(\d+)(GB|GIB|G)", word) for word in words)
    size = next((found[1] for found in sizes if found), None)
    return next((kind for kind in gpus.KINDS if kind in words), name.upper()), size


def told_apart(one: NodePool, other: NodePool) -> bool:
    """Whether `match` can tell nodes of the two from each other by what they have and by their labels."""
    if any(other.labels.get(name, value) != value for name, value in one.labels.items()):
        return True
    if one.accelerators != other.accelerators or one.cpus != other.cpus:
        return True
    return not same_kind(one.accelerator or "", other.accelerator or "")


def _named(pools: Sequence[NodePool], name: str) -> Match:
    found = next((pool for pool in pools if pool.name == name), None)
    return Match(found, "" if found else f"its label {POOL_LABEL}={name} names none of the pools {_listed(pools)}")


def _fits(pool: NodePool, kind: str | None, count: float) -> bool:
    if pool.accelerators != count:
        return False
    return not count or kind is None or same_kind(kind, pool.accelerator or "")


def _contradicts(pool: NodePool, labels: Mapping[str, str]) -> bool:
    return any(labels.get(name, value) != value for name, value in pool.labels.items())


def _carries(pool: NodePool, labels: Mapping[str, str]) -> bool:
    return bool(pool.labels) and all(labels.get(name) == value for name, value in pool.labels.items())


def _listed(pools: Sequence[NodePool]) -> str:
    return ", ".join(f"{pool.name} ({_words(pool)})" for pool in pools) or "none"


def _words(pool: NodePool) -> str:
    return f"{pool.accelerators} {pool.accelerator}" if pool.accelerator else f"{pool.cpus} CPUs"
