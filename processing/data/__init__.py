"""`datasets` builders for multi-view 3D data."""
