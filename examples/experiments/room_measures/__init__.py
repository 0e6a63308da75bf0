"""A model measured on rendered rooms: its tasks, and what may be asked in other ways, beside blind baselines."""

from .figures_table import figures_table
from .room_measure import measure_rooms


__all__ = ["figures_table", "measure_rooms"]
