"""The queue's policy: a pure function from the state of a cluster to decisions (`policy.decide`)."""
