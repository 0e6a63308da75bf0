"""ScanNet: its scenes and frames, and the sets of descriptions and questions about them."""
