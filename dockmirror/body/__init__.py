"""Bytes with a descriptor, to be delivered once, and what is done to them on their way."""
