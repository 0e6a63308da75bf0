"""GAP-MLLM for transformers: the public names, and the Auto class registrations."""
