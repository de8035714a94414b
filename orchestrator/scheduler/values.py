"""What the policy is told: nodes, queued and running runs, quotas, and the rules, as plain frozen values.

Times are seconds on any one clock; memory is in bytes; a GPU is 1000 milli. Every value packs its numbers into a row
of bytes when they are first asked for: ten thousand values become one numpy table by joining their rows.
"""

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from hashlib import blake2b
from typing import Literal

ANY = "*"
"""Kind of an option that every node satisfies."""
WHOLE = 1000
"""Milli of a whole GPU."""
WIDTH = 16
"""The most GPUs that a node may have."""


@lru_cache(maxsize=1 << 18)
def number_of(name: str) -> int:
    """A number that stands for a name in a table: 63 bits of its BLAKE2 digest, the same in every process."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little") >> 1


@dataclass(frozen=True)
class Node:
    """A node with what is free on it now: what its runs, and the runs that are being started there, leave over."""

    name: str
    kind: str
    """Kind of its accelerators, such as H100; empty on a CPU node."""
    free: tuple[int, ...]
    """Free milli of each of its GPUs, in the order of their index; WHOLE is an idle one."""
    cpus: float = math.inf
    """Free CPU cores."""
    memory: float = math.inf
    """Free main memory, bytes."""
    island: int = 0
    """GPUs of an NVLink island, which are neighbours by index; 0: all of the node's are one."""
    spot: bool = False
    """It may be taken away at short notice."""
    leaves_at: float = math.inf
    """When it goes away (a spot notice, a drain); nothing is placed on it any more, and its runs must leave by then."""

    def __post_init__(self) -> None:
        if len(self.free) > WIDTH:
            raise ValueError(f"node {self.name} has {len(self.free)} GPUs, at most {WIDTH} are supported")

    @property
    def key(self) -> str:
        """What it is known by."""
        return self.name

    @cached_property
    def row(self) -> bytes:
        """Its numbers, in the layout of `tables.NODE`."""
        free = (*self.free, *(0 for _ in range(WIDTH - len(self.free))))
        size = len(self.free)
        return _NODE.pack(
            number_of(self.name),
            number_of(self.kind),
            self.cpus,
            self.memory,
            self.leaves_at,
            size,
            self.island or max(size, 1),
            self.spot,
            *free,
        )


@dataclass(frozen=True)
class Demand:
    """What a run needs: `bundles` equal parts, placed all or none; a bundle lies on one node."""

    gpus: int = 1
    """GPUs of a bundle."""
    milli: int = WHOLE
    """Share of each GPU: WHOLE, or less for a bundle that shares one GPU."""
    cpus: float = 0.0
    memory: float = 0.0
    """CPU cores and bytes of main memory of a bundle."""
    bundles: int = 1

    def __post_init__(self) -> None:
        if not (1 <= self.milli <= WHOLE and self.gpus >= 0 and self.bundles >= 1):
            raise ValueError(f"{self} is no demand: a share is 1..{WHOLE} milli, with at least one bundle")

    @cached_property
    def size(self) -> float:
        """GPUs of the whole gang, with fractions; a run without GPUs counts as a hundredth of one for each bundle."""
        return self.bundles * (self.gpus * self.milli / WHOLE or 0.01)


@dataclass(frozen=True)
class Option:
    """A kind of accelerator that a run accepts, with what the plan expects there."""

    kind: str
    seconds: float
    """How long the rest of the run takes on it."""
    usd: float = 0.0
    """What that costs."""


@dataclass(frozen=True)
class Run:
    """A run that waits, or the request of one that runs."""

    id: str
    demand: Demand
    options: tuple[Option, ...]
    team: str = ""
    priority: int = 0
    """A higher class goes first, whatever waits in the lower ones."""
    submitted: float = 0.0
    waiting_since: float = 0.0
    """When it entered the queue last: its submission, or its preemption."""
    prefer: Literal["time", "cost"] = "time"
    """Which of its options it likes best, of those that keep the deadline."""
    deadline: float = math.inf
    """When it should have finished."""
    max_queue: float = math.inf
    """The longest it may wait, seconds since `waiting_since`; then it is given up."""
    preemptions: int = 0
    """How often it had to yield."""
    spot: bool = True
    """It may run on spot nodes."""
    checkpointable: bool = False
    """It can be stopped and resumed from a checkpoint."""

    def __post_init__(self) -> None:
        if not self.options:
            raise ValueError(f"run {self.id} accepts no kind of accelerator, at least one option is needed")

    @cached_property
    def seconds(self) -> float:
        """The shortest of its estimates."""
        return min(option.seconds for option in self.options)

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """The kinds that it accepts, sorted."""
        return tuple(sorted({option.kind for option in self.options}))

    @cached_property
    def shape(self) -> int:
        """A number that runs share which fit in the same places."""
        demand = self.demand
        parts = (demand.gpus, demand.milli, demand.cpus, demand.memory, demand.bundles, self.kinds, self.spot)
        return number_of(repr(parts))

    @property
    def key(self) -> str:
        """What it is known by."""
        return self.id

    @cached_property
    def row(self) -> bytes:
        """Its numbers, in the layout of `tables.RUN`."""
        return _RUN.pack(
            number_of(self.id),
            self.shape,
            number_of(self.team),
            self.priority,
            self.submitted,
            self.waiting_since,
            self.deadline,
            self.max_queue,
            self.seconds,
            self.demand.size,
            self.preemptions,
        )


@dataclass(frozen=True)
class Placement:
    """A bundle's place: a node and the indices of its GPUs there."""

    node: str
    gpus: tuple[int, ...] = ()


@dataclass(frozen=True)
class Running:
    """A run that holds its place."""

    run: Run
    placements: tuple[Placement, ...]
    """One for each bundle."""
    started: float
    """When its work began; infinite while it still waits for those who yield to it."""
    ends: float
    """When it ends by the plan's estimate."""
    saved: float = -math.inf
    """Moment of its last checkpoint; what it has done since is lost when it stops without another one."""
    yielding: bool = False
    """It was told to yield and has not gone yet."""

    @property
    def key(self) -> str:
        """What it is known by."""
        return self.run.id

    @cached_property
    def row(self) -> bytes:
        """Its numbers, in the layout of `tables.RUNNING`."""
        return _RUNNING.pack(
            number_of(self.run.id),
            self.run.shape,
            number_of(self.run.team),
            self.run.priority,
            self.started,
            self.ends,
            max(self.saved, self.started),
            self.run.demand.size,
            self.run.preemptions,
            self.run.checkpointable,
            self.yielding,
        )

    @cached_property
    def parts(self) -> bytes:
        """One row for each bundle, in the layout of `tables.PART`."""
        demand = self.run.demand
        return b"".join(
            _PART.pack(
                number_of(place.node), sum(1 << gpu for gpu in place.gpus), demand.milli, demand.cpus, demand.memory
            )
            for place in self.placements
        )


@dataclass(frozen=True)
class Quota:
    """What a team is owed."""

    gpus: float
    """GPUs that are the team's own: lent while it does not use them, and taken back when it does."""
    borrow: float = math.inf
    """How many more it may use while others do not."""


@dataclass(frozen=True)
class State:
    """All that a decision depends on; the sequences are tuples, or a `Series` for who decides often."""

    now: float
    nodes: Sequence[Node]
    queued: Sequence[Run]
    running: Sequence[Running] = ()
    """Runs that hold a place, those included that are being started."""
    quotas: Mapping[str, Quota] = field(default_factory=dict)
    """By team; a team without one may use everything and owns nothing. Without any quota nobody borrows."""


_NODE = struct.Struct(f"<2q3d3i{WIDTH}i4x")
_RUN = struct.Struct("<3q8d")
_RUNNING = struct.Struct("<3q8d")
_PART = struct.Struct("<2q3d")
