"""General helpers: errors, logging, atomic files, progress, signals."""
