"""The way from a tenant's request to the provider's Docker engine, through the filter of protocol/docker."""
