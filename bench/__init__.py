"""Benchmarks of the mirror beside its alternatives, on this machine, in one run."""
