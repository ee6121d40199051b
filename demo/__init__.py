"""Demonstration of a pull through the mirror, step by step, on the loopback interface only."""
