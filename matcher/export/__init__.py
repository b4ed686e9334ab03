"""Matches of many pairs for other programs: tracks, COLMAP databases and hloc's files."""
