"""A decision while it is made: its tables, what is still free, and what has been decided so far."""

from collections.abc import Iterator
from functools import cached_property
from itertools import groupby

import numpy as np

from orchestrator.scheduler.decisions import GiveUp, Preempt, Reserve, Start
from orchestrator.scheduler.fits import Fits
from orchestrator.scheduler.fragmentation import Mix
from orchestrator.scheduler.placement import Place, pack
from orchestrator.scheduler.quotas import Usage
from orchestrator.scheduler.reservation import Releases, spare
from orchestrator.scheduler.rules import Rules
from orchestrator.scheduler.series import table
from orchestrator.scheduler.tables import RUN, RUNNING, Bools, Cluster, Floats, Ints
from orchestrator.scheduler.values import ANY, Option, Placement, Run, State


class Board:
    """Two views of what is free: all of it, for runs that end before the reservation, and what it leaves to others."""

    def __init__(self, state: State, rules: Rules) -> None:
        self.state, self.rules, self.now = state, rules, state.now
        self.queue, self.running = table(state.queued, RUN), table(state.running, RUNNING)
        self.whole = self.rest = Cluster(state.nodes)
        self.usage = Usage(state.quotas, self.queue, self.running)
        self.reserved_at = np.inf
        self.starts: dict[int, Start] = {}
        self.preemptions: dict[int, Preempt] = {}
        self.reservations: dict[int, Reserve] = {}
        self.given_up: dict[int, GiveUp] = {}
        self._ever: dict[int, bool] = {}
        self._never: set[int] = set()
        shapes = np.concatenate([self.queue["shape"], self.running["shape"]])
        _, first, inverse, self.counts = np.unique(shapes, return_index=True, return_inverse=True, return_counts=True)
        count = len(state.queued)
        self.shapes = [state.queued[row] if row < count else state.running[row - count].run for row in first]
        """One run of each shape."""
        self.shape = inverse[:count]
        """[queued] which one."""

    @cached_property
    def fits(self) -> Fits:
        """Which shapes fit into all that is free."""
        return Fits(self.whole, self.shapes)

    @cached_property
    def fits_rest(self) -> Fits:
        """Which shapes fit into what the reservation leaves."""
        return self.fits if self.rest is self.whole else self.fits.on(self.rest)

    @cached_property
    def mix(self) -> Mix:
        """What usually runs here."""
        return Mix.of(self.whole, self.shapes, self.counts)

    @cached_property
    def ends(self) -> Floats:
        """[running] when each is expected to end; one that outlived its estimate, some share of its age from now."""
        age = np.maximum(self.now - self.running["started"], 1.0)
        return np.where(self.running["ends"] > self.now, self.running["ends"], self.now + self.rules.overrun * age)

    @cached_property
    def releases(self) -> Releases:
        """What the running runs give back."""
        return Releases(self.whole, self.state.running, self.ends)

    @cached_property
    def idle(self) -> Cluster:
        """The cluster if everything that runs had ended."""
        return self.releases.by(np.inf)

    def ever(self, row: int) -> bool:
        """Whether a queued run would fit then."""
        run, shape = self.state.queued[row], int(self.shape[row])
        if shape not in self._ever:
            slots = self.idle.slots(run.demand, self.idle.accepts(run.kinds, run.spot))
            self._ever[shape] = bool(slots.sum() >= run.demand.bundles)
        return self._ever[shape]

    def open(self, rows: Ints) -> Bools:
        """[rows] whether a queued run fits where it may lie, by its shortest estimate, and its team may hold it."""
        found = self.fits_rest.possible()[self.shape]
        if self.rest is not self.whole:
            early = self.now + self.queue["seconds"] <= self.reserved_at
            found |= early & self.fits.possible()[self.shape]
        found &= self.usage.all_may()
        found[[*self.starts, *self.given_up]] = False
        return np.asarray(found[rows])

    def start(self, row: int) -> bool:
        """Place a queued run on the option that it likes best of those that have room for all of it."""
        run = self.state.queued[row]
        if not self.usage.may(run):
            return False
        for options in preferred(run, self.now, self.rules):
            early = self.now + max(option.seconds for option in options) <= self.reserved_at
            view, other = (self.whole, self.rest) if early else (self.rest, self.whole)
            if places := self.pack(view, run, options):
                if other is not view:
                    other.take_all(run.demand, places)
                self.begin(row, options, places)
                return True
        return False

    def reserve(self, row: int) -> bool:
        """Keep places for a queued run from the earliest time on at which it fits; False when it never will."""
        run = self.state.queued[row]
        if not self.usage.may(run) or int(self.shape[row]) in self._never:
            return False
        options = next(preferred(run, self.now, self.rules))
        allowed = self.whole.accepts([option.kind for option in options], run.spot)
        time = self.releases.earliest(run.demand, allowed)
        if np.isinf(time):
            self._never.add(int(self.shape[row]))
            return False
        then = self.releases.by(time)
        places = self.pack(then, run, options)
        assert places is not None, "it was found to fit at this time"
        self.rest, self.reserved_at = spare(self.whole, then), time
        self.__dict__.pop("fits_rest", None)
        self.reservations[row] = Reserve(run.id, time, self.named(places))
        return True

    def pack(self, cluster: Cluster, run: Run, options: tuple[Option, ...]) -> list[Place] | None:
        """Places for a run on any of these options, or None; `cluster` is changed."""
        allowed = cluster.accepts([option.kind for option in options], run.spot)
        return pack(cluster, run.demand, allowed, self.mix, flexible=run.kinds == (ANY,) or len(options) > 1)

    def begin(self, row: int, options: tuple[Option, ...], places: list[Place], after: tuple[str, ...] = ()) -> None:
        """Note a start whose places have been taken from every view of what is free."""
        run = self.state.queued[row]
        for fits in {id(fits): fits for fits in (self.fits, self.fits_rest)}.values():
            fits.update([node for node, _ in places])
        self.usage.add(run)
        self.reservations.pop(row, None)
        self.starts[row] = Start(run.id, self._kind(options, places), self.named(places), after)

    def _kind(self, options: tuple[Option, ...], places: list[Place]) -> str:
        """Which of the options the places belong to."""
        kinds = {option.kind for option in options}
        found = self.state.nodes[places[0][0]].kind
        return found if found in kinds else ANY

    def named(self, places: list[Place]) -> tuple[Placement, ...]:
        """The places in words."""
        return tuple(self.whole.placement(node, gpus) for node, gpus in places)


def preferred(run: Run, now: float, rules: Rules) -> Iterator[tuple[Option, ...]]:
    """A run's options, best first; those that are too slow yet are left out.

    Equally good ones come together, so that the best place of all counts; for a gang each comes alone, since it never
    mixes kinds.
    """
    fastest, waited = run.seconds, now - run.waiting_since

    def rank(option: Option) -> tuple[bool, float]:
        return now + option.seconds > run.deadline, option.seconds if run.prefer == "time" else option.usd

    def alike(option: Option) -> object:
        return rank(option) if run.demand.bundles == 1 else option.kind

    for _, equal in groupby(sorted(run.options, key=rank), key=alike):
        options = tuple(option for option in equal if option.seconds - fastest <= max(waited, rules.slower * fastest))
        if options:
            yield options
