"""What measures images: detectors, networks of features, CLIP; and the passes that use them."""
