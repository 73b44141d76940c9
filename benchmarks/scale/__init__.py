"""A model of a campaign on many workers, checked against runs on this machine."""
