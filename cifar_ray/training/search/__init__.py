"""A hyperparameter search but for who runs its trials: their record, their training, the report."""
