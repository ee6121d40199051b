"""The configuration that each client needs to pull through a mirror: values and text, no I/O."""
