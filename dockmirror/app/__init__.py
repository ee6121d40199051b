"""The parts, put together as the settings would have it."""
