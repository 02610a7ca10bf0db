"""Images: finding, decoding, transforming, ordering and batching them."""
