"""What the project shows to the outside, written down so that a change of it is noticed."""
