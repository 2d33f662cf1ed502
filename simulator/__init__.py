"""A stand-in for WeCom with an injectable clock and the ground truth."""
