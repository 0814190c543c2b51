"""Faults between the operator's process and a real API server, and what must hold on every revision all the same.

`wire` carries the operator's requests and breaks them as a schedule says; `player` plays the rest of the cluster and
talks to the API server directly; `history` is told every revision by an independent watch; `invariants` reads it. A
schedule is one scenario with a few faults, and has a name that replays it: `make faults ARGS=NAME`.
"""
