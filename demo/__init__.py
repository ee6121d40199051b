"""A pull through the mirror, shown step by step, on the loopback interface only."""
