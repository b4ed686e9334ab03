"""Methods behind one interface: ours, the classical ones, trained peers."""
