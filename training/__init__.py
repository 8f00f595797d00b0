"""The fitting: augmentation, averaging, statistics, calibration. Never shipped."""
