"""The client side: connections, proxies, tokens, requests and uploads to upstream registries."""
