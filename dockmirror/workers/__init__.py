"""Worker processes that serve as one mirror."""
