"""A process that uses wandb as a training does, and waits for orders on its standard input. See client.py."""

import json
import sys

import wandb


def main() -> None:
    """Begin a run, then obey one JSON object per line and answer each with one."""
    try:
        run = wandb.init(**json.loads(sys.argv[1]))
    except wandb.errors.UsageError as error:
        print(json.dumps({"error": str(error)}), flush=True)
        sys.exit(1)
    begun = {"id": run.id, "resumed": run.resumed, "starting_step": run.starting_step, "sweep": run.sweep_id}
    print(json.dumps(begun), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        for step in range(*order.get("steps", (0, 0))):
            # As our trainer does it. The value tells the writers of a step apart.
            run.log({"trainer/global_step": step, "value": order["value"]}, step=step, commit=True)
        if "finish" in order:
            run.finish(exit_code=order["finish"])
        print("{}", flush=True)


if __name__ == "__main__":
    main()
