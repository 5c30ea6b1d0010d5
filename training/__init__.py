"""Training: data sets, splits, augmentation, fitting, evaluation, and the phantom."""
