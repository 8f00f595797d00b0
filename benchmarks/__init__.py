"""What this program costs, beside others, in one run: ``python -m benchmarks.speed`` (`make bench`)."""
