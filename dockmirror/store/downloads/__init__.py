"""Blobs that are being downloaded: one writer, many readers, in any number of processes."""
