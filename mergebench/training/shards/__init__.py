"""A training set as token ids on disk: made once for every tokenizer, template and length, read by every training job."""
