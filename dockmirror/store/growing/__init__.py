"""Blobs on their way in: one writer, many readers."""
