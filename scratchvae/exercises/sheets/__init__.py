"""The exercises, one file each: what a reader is given, and below `MARK` what judges the answer."""
