"""Data sets as people keep them: how each layout is read into images, labels and classes."""
