"""What is asked of a server: own prompts, synthetic ones, or a recorded trace; see config.py."""

from orchestrator.loadgen.workload.prompts import endless, read_prompts, with_nonce
from orchestrator.loadgen.workload.talk import Messages

__all__ = ["Messages", "endless", "read_prompts", "with_nonce"]
