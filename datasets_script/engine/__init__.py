"""The synthesis engine: runs the stages over a folder of photos, shard by shard, in any number of processes."""
