"""A mirror in front of every container registry."""
