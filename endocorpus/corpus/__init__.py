"""The contract on disk: schemas, manifests and shards. All of `endocorpus` that `endofm` may import."""
