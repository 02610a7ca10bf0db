"""Building blocks of HTML pages: markup, figures, thumbnails."""
