"""Measure a classifier on a laboratory's images, with intervals, and write the card that states what was measured."""
