"""The registry that is mirrored, asked over HTTP."""
