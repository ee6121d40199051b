"""Who may use the mirror by name, and how they prove it."""
