"""Constants of the training models. `benchmarks/planner.py --fit` refits the fitted ones on the calibration tables."""

from orchestrator.config import Model


class MemoryConstants(Model):
    """Of `training_memory.py`."""

    activations: float = 1.0
    """Kept activations, relative to the tensors that are counted: what the count misses. Fitted."""
    fragmentation: float = 0.05
    """Reserved over allocated memory, less one, of everything that comes and goes within a step. Fitted."""
    low: float = 0.85
    """Lower end of the interval, relative to the prediction: 5 % of left-out sources' rows are below."""
    high: float = 1.2
    """Upper end."""
    context_bytes: float = 0.6 * 2**30
    """CUDA context, library handles and NCCL's buffers; 0.45-0.55 GiB and 0.1-0.4 GiB in nvidia-smi, not in torch."""


MEMORY = MemoryConstants()
"""The shipped ones."""
