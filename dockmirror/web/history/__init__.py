"""The page of the history: what was pulled, by whom, and what that saved."""
