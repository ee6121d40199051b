"""Pages of the images that the mirror holds."""
