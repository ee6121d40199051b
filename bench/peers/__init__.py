"""The programs that are compared: each module starts one and returns its address."""
