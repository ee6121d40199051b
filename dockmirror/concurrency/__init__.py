"""Work that is done once for many, over and over, or left for a while."""
