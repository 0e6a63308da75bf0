"""Processor, answers, visual prompts, camera geometry and data for GAP-MLLM."""
