"""The tiny twins: small models with the real architectures, their tokenizer, their generated world and their pretraining."""
