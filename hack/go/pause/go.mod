module sweeprun.dev/hack/pause

go 1.24
