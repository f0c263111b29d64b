"""What it costs: time, memory and FLOPs; run by tools/benchmark.py."""
