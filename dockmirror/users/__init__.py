"""User accounts of the mirror: passwords and tokens."""
