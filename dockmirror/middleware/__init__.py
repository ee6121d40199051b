"""Registries in front of another one: each wraps it, and adds one thing."""
