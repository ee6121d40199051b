"""What the machine gives to a process, and takes: files, time, threads, other programs."""
