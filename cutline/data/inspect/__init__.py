"""What is in a dataset, and what in it will spoil a training: counted sample by sample, and said in plain words."""
