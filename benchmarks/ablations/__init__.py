"""Short trainings at equal compute, one change each: what every part of the recipe is worth."""
