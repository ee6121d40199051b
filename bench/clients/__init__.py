"""Clients that use as little processor time as possible."""
