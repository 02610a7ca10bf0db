"""Measure speed and memory, alone and compared with other libraries."""
