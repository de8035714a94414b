"""Carrying a run from its plan to its end: planning, driving, executing one stage, judging its gates."""
