"""What is asked of a server: own prompts, synthetic ones, or a recorded trace; see config.py."""
