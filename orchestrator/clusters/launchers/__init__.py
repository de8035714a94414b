"""One file, one way to start a cluster's nodes; `base.py` is the contract."""
