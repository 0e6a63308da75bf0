"""GAP-MLLM in VLMEvalKit: model.py is the model, run.py starts the kit with it."""
