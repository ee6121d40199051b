"""The cases of the distribution specification, put to registries directly and through the mirror."""
