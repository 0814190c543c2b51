"""Runs that are killed and resumed until they are complete: is their final state that of an undisturbed run, bit for
bit? `make exactness ARGS='--runs 200'`."""
