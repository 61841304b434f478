"""What makes a CPU faster: fused modules, and batches side by side."""
