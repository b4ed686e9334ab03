"""Many views as one: the pair graph, dense (DUSt3R) and sparse (MASt3R-SfM) alignment."""
