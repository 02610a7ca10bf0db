"""Building blocks of the pages that the program writes: HTML, figures, small images."""
