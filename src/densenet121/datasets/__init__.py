"""Find, decode, transform, order and batch images."""
