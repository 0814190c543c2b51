"""The operator's own process against a real kube-apiserver and etcd, with many runs: `make bench-scale`.

Kubelets, the Job controller and garbage collection are simulated by one task (kubelets.py) that writes through the same
API server; training-operator is simulated too, except where a subject says that it starts the real one. Everything
shares this machine's processors, so that times mean little and ratios within one run mean more.

`make bench-scale ARGS='idle --runs 5000'`: one subject, its size. Targets are printed beside the figures; docs/scale.md
says what limits each.
"""
