"""The status page for operators, and the same as text and JSON."""
