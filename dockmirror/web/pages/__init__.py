"""What people see of the mirror: a page, and the same as text for machines without a browser."""
