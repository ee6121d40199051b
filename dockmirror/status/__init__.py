"""What the status page tells: noted as it happens, in bounded memory; nobody is asked for it."""
