"""What comes after the papers: the verdicts on all claims, and the index page."""
