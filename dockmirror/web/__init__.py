"""What clients see: HTTP, and the registry API over it."""
