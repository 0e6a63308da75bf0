"""What a model is asked about rendered rooms, by kind of question, size, view and style, and tables of its figures."""
