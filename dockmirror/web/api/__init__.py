"""The API of the operations endpoint."""
