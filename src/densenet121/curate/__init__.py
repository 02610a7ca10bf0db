"""Looking after collections of pictures: what is wrong with one, and shards of it."""
