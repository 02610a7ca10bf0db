"""Sources of images: one module per format."""
