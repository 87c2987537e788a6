"""The HTTP surface for machines that watch a process: liveness, readiness, metrics."""
