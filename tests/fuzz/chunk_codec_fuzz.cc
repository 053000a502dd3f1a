// Messages of any bytes, in slices of any sizes: the codec by hand and generated protobuf say the same of them.
#include <vector>

#include "tests/fuzz/chunk_codec_model.h"
#include "tests/fuzz/fuzz_input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  refit::FuzzInput input(data, size);
  std::vector<size_t> cuts(input.Below(6));
  for (size_t& cut : cuts) cut = input.Byte();
  refit::CheckAgainstProtobuf(input.Rest(), cuts);
  return 0;
}
