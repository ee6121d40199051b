"""Byte streams with a descriptor, and wrappers that change them on their way."""
