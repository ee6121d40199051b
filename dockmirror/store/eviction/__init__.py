"""What goes when the budget is spent."""
