"""Eviction of the least recently used contents when the store exceeds its budget."""
