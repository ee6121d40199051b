"""How each client is told of a mirror, in its own configuration: values and text, no I/O."""
