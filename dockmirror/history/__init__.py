"""The history of pulls: what was pulled by whom, in one SQLite file that all processes of a machine share."""
