"""HTTP/1.1 as the mirror serves it: connections, request heads and bodies, timeouts and limits."""
