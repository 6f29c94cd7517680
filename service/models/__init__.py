"""Models: their files, and predictions with them."""
