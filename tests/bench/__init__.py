"""Measurements of what is promised about speed and memory: `make bench`, or `make bench ARGS=torch_files`.

They print what was measured beside its target and whether that was met; they fail nothing, for a busy machine says
little. Run them on a quiet one.

A subject is a module in this folder with a function

    def measure(bench: Bench) -> Iterator[Row]

that needs no other registration. It makes its files below `bench.place`, a directory of its own that is removed
afterwards; takes its sizes from `bench.mib(NAME, default)`, which the environment variable SWEEPRUN_BENCH_<NAME>_MIB
changes; and compares two ways of doing something by `bench.ratio(ours, theirs)`, which runs them in turns, so that both
see the same disk and the same neighbours. Each runs in a process of its own: validation forks only where there are no
other threads, and torch leaves some behind. A subject whose packages are missing yields nothing but Row.skipped.

Environment: SWEEPRUN_BENCH_DIR, where files are made (default: the system's directory for temporary files);
SWEEPRUN_BENCH_ROUNDS, rounds of each comparison (default 7).
"""
