"""Stream corpora into pre-training of an endoscopy video transformer."""
