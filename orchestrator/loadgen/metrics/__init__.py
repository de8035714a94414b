"""Metrics of the load generator: one file, one metric, with its formula and unit."""
