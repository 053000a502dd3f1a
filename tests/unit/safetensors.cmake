refit_test(safetensors_test
  SOURCES safetensors/safetensors_file_test.cc safetensors/safetensors_writer_test.cc safetensors/checkpoint_test.cc
          safetensors/dcp_shards_test.cc safetensors/shard_metadata_test.cc
  DEPS refit::safetensors
  LABELS unit)
