"""The operator's choices: what there is to choose, and where it is read."""
