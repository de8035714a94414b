"""Engines and quantizers in environments of their own: their pins contradict each other and the orchestrator's."""
