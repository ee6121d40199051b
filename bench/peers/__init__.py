"""The programs that are measured: each module starts one, and says where it answers."""
