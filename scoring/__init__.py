"""Scoring an archive of images on Ray Data: where they lie, what was listed, how they are read, named and kept."""
