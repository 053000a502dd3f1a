// The golden cases of tests/data/golden/families: native tensors, and what the reference adapters made of each.
#pragma once

#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "common/adapters/plan.h"
#include "common/safetensors/safetensors.h"

namespace refit {

struct FamilyCase {
  std::string id;
  std::string adapter;
  AdapterOptions options;
  DType dtype = DType::kF32;  // of the reference's adapter: from_hf casts experts to it
  std::string exclude_key_regex;
  std::string input;                             // path
  std::string output;                            // path; empty if an error is expected
  std::vector<std::vector<TensorSpec>> outputs;  // of each native tensor, in order
  bool accepts_error = false;
  bool order_free = false;
};

std::vector<FamilyCase> FamilyCases();
// Those of tests/data/golden/families_from_hf: `input` has HF tensors, and `output` what the reference's from_hf made.
std::vector<FamilyCase> FromHfCases();

std::ostream& operator<<(std::ostream& out, const FamilyCase& golden);

// A name for a parameterised test.
std::string TestName(const FamilyCase& golden);

}  // namespace refit
