refit_test(delta_test
  SOURCES delta/delta_codec_test.cc delta/compose_deltas_test.cc delta/delta_decoder_test.cc
  DEPS refit::delta refit::tensor
  LABELS unit)
