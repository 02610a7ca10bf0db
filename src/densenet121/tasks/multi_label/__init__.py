"""Any number of labels per image, some perhaps unknown: sigmoid, masked cross-entropy, AUROC."""
