"""What should stand where: regions, masks, rasters, and the tokens of their phrases."""
