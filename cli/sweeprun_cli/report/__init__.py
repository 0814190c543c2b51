"""`sweeprun report`: one HTML file that tells the story of a run or a sweep, without a network and without scripts."""
