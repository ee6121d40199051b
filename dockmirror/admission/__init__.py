"""Rules for what may be served, and when: pure functions over facts that are gathered elsewhere."""
