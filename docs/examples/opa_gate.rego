package dockmirror

import rego.v1

# Each reason refuses the image; the set is empty for an image that may be served.
deny contains "images of Docker Hub need the label org.opencontainers.image.source" if {
	input.registry == "docker.io"
	not startswith(input.repository, "library/")
	input.media_type == "application/vnd.oci.image.manifest.v1+json"
	not input.labels["org.opencontainers.image.source"]
}

deny contains sprintf("%s is larger than 2 GB", [input.repository]) if input.size > 2000000000
