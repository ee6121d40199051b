"""The mirror in all that may befall it: upstreams that lie, and machines that fail."""
