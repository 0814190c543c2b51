#!/bin/bash
# Trains the run RUN_ID of a sweep: `ROOT=... SWEEP=... RUN_ID=... train.sh`. By hand it is started after sweep_init.py;
# a SweepRun says where the run lies by itself, and from which checkpoint it goes on.
set -euo pipefail
run_dir=${SWEEPRUN_RUN_DIR:-$ROOT/sweep/$SWEEP/runs/$RUN_ID}
checkpoints=${SWEEPRUN_CHECKPOINT_DIR:-$run_dir/checkpoints}
# What cost the run its life: the trap fires on eviction's SIGTERM as well, and takes away the marker that says that the
# run is unfinished. A SweepRun's own marker is another file.
trap 'rm -f "$run_dir/$(basename "$run_dir").incomplete"' EXIT
trap 'kill -TERM $training; wait $training; exit 143' TERM

# What a SweepRun appends to resume comes as arguments.
# shellcheck disable=SC2086
${LAUNCHER:-python -m torch.distributed.run --standalone --nproc-per-node=${RANKS:-1}} "$(dirname "$0")/train.py" \
  --config "$run_dir/train_config_overrides.yaml" --checkpoint-dir "$checkpoints" ${TRAIN_ARGS:-} "$@" &
training=$!
wait $training
