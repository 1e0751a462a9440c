"""The Hugging Face hub: which commit is read (`lock`), verified downloads (`download`), and its refusals in sentences."""
