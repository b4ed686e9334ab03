"""How long things take, and how little they could."""
