"""Check data before training."""
