"""The numbers that the policy can be set by; the defaults are those that benchmarks/policy was run with."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Rules:
    """Times are seconds."""

    reserve_after: float = 6 * 3600.0
    reserve_factor: float = 1.0
    """A run gets a reservation when it has waited for longer than `reserve_after` and this many times its estimate."""
    width: float = 0.5
    """Within a class the queue is in the order of estimated seconds times GPUs to this power: 0 is shortest first, 1 is
    least GPU time first."""
    slower: float = 1.0
    """A kind on which a run takes longer than on its fastest by more than this share of it is taken only when the run
    has waited for as long as it loses there."""
    urgent: float = 1.0
    """A run goes ahead in its class when what it may still wait to keep its deadline is below this many times its
    estimate."""
    overrun: float = 0.5
    """A run that has outlived its estimate is expected to take this share of its age more."""
    preempt_after: float = 60.0
    """A run waits at least so long before another yields for it."""
    preempt_trade: float = 0.5
    """Within a class runs yield when the wait that is saved exceeds this many times the delay of all who yield; 0
    switches that off."""
    preempt_ratio: float = 10.0
    """Within a class a run yields only for one that takes less than its own remaining time by this factor."""
    preempt_credit: float = 0.1
    """A run that has yielded counts with this share of its work in the order of the queue: it comes back soon."""
    preempt_tries: int = 2
    """The first so many of the queue for whom places are sought by preemption."""
    preempt_min_run: float = 1800.0
    """A run that started less than this ago does not yield for a run of its own class."""
    preempt_limit: int = 3
    """A run that has yielded so often does not yield again."""
    save_within: float = 120.0
    """Time for the checkpoint that is asked for."""
    resume: float = 180.0
    """What a preemption costs the run besides: to save, to start again and to load."""
    starts: int = 64
    """The most starts of one decision, which bounds its time; `Plan.more` says that there may be others."""
