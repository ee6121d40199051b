"""The composition root: builds the mirror from its settings."""
