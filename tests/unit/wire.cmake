refit_test(digest_test SOURCES wire/digest_test.cc DEPS refit::wire PkgConfig::xxhash LABELS unit)
refit_test(chunk_codec_test SOURCES wire/chunk_codec_test.cc DEPS refit::wire refit::proto LABELS unit)
