"""How often to save: Young's and Daly's interval from what was measured of a run."""
