"""The mirror's settings: the model, the types of fields, and loading."""
