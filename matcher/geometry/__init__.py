"""Two-view geometry in numpy float64: cameras, pixels, and the robust estimators of poses."""
