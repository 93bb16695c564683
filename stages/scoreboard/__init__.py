"""What comes after the papers: the verdicts on all claims, the index page; and what runs it all."""
