"""A store in a bucket, for any number of mirrors on any number of machines."""
