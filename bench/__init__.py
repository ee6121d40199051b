"""What the mirror costs, measured on the loopback interface with servers and clients of our own."""
