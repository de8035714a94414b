"""Releases: which one answers for a service, and the engines and the gateway that make them answer."""
