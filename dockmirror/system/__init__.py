"""Helpers for processes, files, memory and networks of the operating system."""
