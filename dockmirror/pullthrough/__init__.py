"""A registry in front of a registry and a store: serves what is held, fetches and keeps what is not."""
