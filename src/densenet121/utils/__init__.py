"""Parts that know nothing of this project: errors, logging, atomic files, progress, signals."""
