"""What a user would run instead, in our own words: the loops that ours is measured against."""
