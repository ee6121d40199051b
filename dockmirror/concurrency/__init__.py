"""Single flight, periodic tasks, caches with a time to live, backoff and circuit breakers."""
