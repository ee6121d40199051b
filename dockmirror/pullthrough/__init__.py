"""A registry in front of a registry and a store: serves stored content, and stores what it fetches."""
