"""Read, audit, digest and write safetensors checkpoints (Hugging Face folders)."""
