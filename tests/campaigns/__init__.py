"""Campaigns against our promises: many generated cases, each of which can be made again."""
