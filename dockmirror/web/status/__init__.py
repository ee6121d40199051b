"""What whoever runs the mirror sees of it: a page that moves, and the same as JSON."""
