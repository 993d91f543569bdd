"""Models in files: pyrnn's own, and those of other systems."""
