#include "tests/golden/gemma4_moe/golden_case.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "test_paths.h"

namespace refit {
namespace {

const std::string kFolder = std::string(REFIT_TEST_DATA) + "/golden/";

GoldenCase Parse(const nlohmann::json& json) {
  const nlohmann::json& args = json.at("args");
  GoldenCase golden;
  golden.id = json.at("id");
  golden.operation = json.at("op");
  golden.experts = args.at("n_experts");
  golden.dtype = ParseDType(args.at("dtype").get<std::string>()).value();
  golden.exclude_key_regex = args.value("exclude_key_regex", "");
  golden.mesh = {args.value("ep_rank", 0), args.value("ep_size", 1), args.value("ep_shard_rank", 0),
                 args.value("ep_shard_size", 1)};
  golden.input = kFolder + json.at("input").get<std::string>();
  if (json.contains("output")) golden.output = kFolder + json.at("output").get<std::string>();
  golden.output_keys = json.value("output_keys", std::vector<std::string>());
  golden.error_message = json.value("error_message", "");
  return golden;
}

}  // namespace

std::vector<GoldenCase> GoldenCases(const std::string& operation) {
  std::ifstream file(kFolder + "cases.json");
  std::vector<GoldenCase> cases;
  for (const nlohmann::json& json : nlohmann::json::parse(file)) {
    GoldenCase golden = Parse(json);
    if (operation.empty() || golden.operation == operation) cases.push_back(std::move(golden));
  }
  return cases;
}

std::ostream& operator<<(std::ostream& out, const GoldenCase& golden) { return out << golden.id; }

GoldenTensors::GoldenTensors(const std::string& path) : file_(SafetensorsFile::Open(path).value()) {}

void GoldenTensors::ExpectHas(const TensorSpec& spec, absl::Span<const std::byte> bytes) const {
  const std::vector<TensorSpec>& tensors = file_->tensors();
  const auto found =
      std::find_if(tensors.begin(), tensors.end(), [&](const TensorSpec& tensor) { return tensor.name == spec.name; });
  ASSERT_NE(found, tensors.end()) << spec.name;
  EXPECT_EQ(*found, spec) << found->ToString() << " was expected, got " << spec.ToString();
  const absl::Span<const std::byte> expected = file_->data(static_cast<size_t>(found - tensors.begin()));
  EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), expected.begin(), expected.end())) << spec.name;
}

}  // namespace refit
