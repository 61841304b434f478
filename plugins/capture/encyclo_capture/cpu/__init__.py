"""Speed on a CPU: fused modules and parallel batches."""
