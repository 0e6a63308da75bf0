"""Scanned rooms with poses, depth and boxes, other than from ScanNet alone."""
