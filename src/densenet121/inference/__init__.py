"""From weights and images to logits and answers, for eval, predict, serve and export."""
