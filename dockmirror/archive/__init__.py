"""Archives of images: an OCI image layout in a tar file that docker, podman and skopeo load."""
