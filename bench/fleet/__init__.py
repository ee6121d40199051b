"""A model of several mirrors in front of many machines, and its comparison with three real mirrors."""
