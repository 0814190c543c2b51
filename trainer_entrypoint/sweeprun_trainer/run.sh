#!/bin/sh
# Puts SweepRun's entrypoint around the command of a training container: run.sh COMMAND [ARGUMENT]...
# Needs nothing of the image but a shell and any Python 3.9 or newer.
here=${0%/*}
[ "$here" != "$0" ] || here=.

new_enough() {
  "$1" -I -c 'import sys; sys.exit(sys.version_info < (3, 9))' >/dev/null 2>&1
}

start() { # PYTHON COMMAND...: -I keeps the program's PYTHON* variables from changing the entrypoint
  python=$1
  shift
  exec "$python" -I "$here/sweeprun.pyz" exec -- "$@"
}

# process 1 ignores what it does not handle: told to go while Python is looked for, it has to go
trap 'exit 143' TERM

if [ -n "${SWEEPRUN_PYTHON:-}" ]; then
  if new_enough "$SWEEPRUN_PYTHON"; then
    start "$SWEEPRUN_PYTHON" "$@"
  fi
  echo "sweeprun: spec.entrypoint.pythonPath is $SWEEPRUN_PYTHON, which is no Python 3.9 or newer in this image" >&2
  exit 81
fi

for candidate in \
  python3 python python3.14 python3.13 python3.12 python3.11 python3.10 python3.9 \
  "${VIRTUAL_ENV:-/nonexistent}/bin/python3" "${CONDA_PREFIX:-/nonexistent}/bin/python3" \
  /opt/conda/bin/python3 /opt/conda/envs/*/bin/python3 /opt/miniconda3/bin/python3 /opt/venv/bin/python3 \
  /venv/bin/python3 /app/.venv/bin/python3 /workspace/.venv/bin/python3 /opt/*/bin/python3 \
  /usr/local/bin/python3 /usr/bin/python3 /usr/libexec/platform-python; do
  if new_enough "$candidate"; then
    start "$candidate" "$@"
  fi
done

echo "sweeprun: this image has no Python 3.9 or newer on PATH or in the usual places: name one in" \
  "spec.entrypoint.pythonPath, use an image that has one, or set spec.entrypoint.mode: EnvOnly" >&2
exit 81
