"""A local store in front of a bucket."""
