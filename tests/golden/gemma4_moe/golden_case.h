// The golden cases: inputs, and the outputs that the reference adapter made of them.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "common/adapters/gemma4_moe_plan.h"
#include "common/safetensors/safetensors.h"

namespace refit {

struct GoldenCase {
  std::string id;
  std::string operation;
  int64_t experts = 0;
  DType dtype = DType::kF32;
  std::string exclude_key_regex;
  ExpertMesh mesh;
  std::string input;                     // path
  std::string output;                    // path; empty if an error is expected
  std::vector<std::string> output_keys;  // in emission order
  std::string error_message;             // of the reference
};

// All cases, or those of one operation.
std::vector<GoldenCase> GoldenCases(const std::string& operation = "");

std::ostream& operator<<(std::ostream& out, const GoldenCase& golden);

// A file's tensors by name, for comparison.
class GoldenTensors {
 public:
  explicit GoldenTensors(const std::string& path);
  size_t size() const { return file_->tensors().size(); }
  const SafetensorsFile& file() const { return *file_; }
  std::shared_ptr<const SafetensorsFile> shared_file() const { return file_; }

  // Fails the test, naming the tensor, unless a tensor of exactly this spec and these bytes is there.
  void ExpectHas(const TensorSpec& spec, absl::Span<const std::byte> bytes) const;

 private:
  std::shared_ptr<const SafetensorsFile> file_;
};

}  // namespace refit
