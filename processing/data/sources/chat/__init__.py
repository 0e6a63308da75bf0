"""Files of turns in words, as chat models are trained on: those of one project each."""
