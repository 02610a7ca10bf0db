"""Measurements of speed and memory, alone and against others."""
