"""What asks, and takes what comes, at as little cost as can be."""
