"""The HTTP resources of the mirror: the registry API, the pages for people, and operations."""
