// A small model whose tensors lie in shared memory, with the same values in every process.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/wire/digest.h"
#include "refit/tensor_spec.h"

namespace refit {

inline const std::vector<TensorSpec>& MappedModel() {
  static const std::vector<TensorSpec> specs = {{"large", DType::kU8, {5'000'000}},
                                                {"middle", DType::kBF16, {700, 300}}};
  return specs;
}

inline std::vector<std::byte> MappedValues(size_t tensor, uint64_t version) {
  std::vector<std::byte> bytes(MappedModel()[tensor].ByteSize());
  for (size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<std::byte>((i * 2654435761U >> 9) + version * 7 + tensor);
  }
  return bytes;
}

// "[digest of the first tensor, of the second]".
inline std::string DigestsOf(const std::vector<uint64_t>& digests) {
  std::string text = "[";
  for (const uint64_t digest : digests) absl::StrAppend(&text, text.size() > 1 ? "," : "", digest);
  return absl::StrCat(text, "]");
}

inline std::string MappedDigests(uint64_t version) {
  std::vector<uint64_t> digests;
  for (size_t i = 0; i < MappedModel().size(); ++i) digests.push_back(DigestBytes(MappedValues(i, version)));
  return DigestsOf(digests);
}

}  // namespace refit
