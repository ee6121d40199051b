"""A store in an S3 bucket that any number of mirrors on any number of machines share."""
