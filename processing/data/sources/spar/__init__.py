"""SPAR-7M and SPAR-Bench: questions with coloured marks on the pictures."""
