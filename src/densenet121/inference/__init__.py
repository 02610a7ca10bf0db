"""From weights and images to logits: one contract for eval and all that is built on it."""
