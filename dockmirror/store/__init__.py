"""The content store: verified blobs and manifests, tags and documents, on disk and in a bucket."""
