"""The attacks without training: closed forms and searches, NumPy and SciPy only."""
