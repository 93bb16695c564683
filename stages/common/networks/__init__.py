"""Network parts that two or more papers use: one file an architecture."""
