"""The networks: configuration, two-view network, CroCo."""
