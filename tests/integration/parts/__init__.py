"""The real registries, token services and clients that the integration tests are made of."""
