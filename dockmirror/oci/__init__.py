"""The terms of the distribution specification as frozen values: no Twisted, no I/O."""
