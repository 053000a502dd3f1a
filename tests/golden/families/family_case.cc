#include "tests/golden/families/family_case.h"

#include <fstream>
#include <nlohmann/json.hpp>

#include "absl/strings/str_replace.h"
#include "test_paths.h"

namespace refit {
namespace {

const std::string kFolder = std::string(REFIT_TEST_DATA) + "/golden/families/";
const std::string kFromHfFolder = std::string(REFIT_TEST_DATA) + "/golden/families_from_hf/";

std::string TextOf(const nlohmann::json& value) {
  if (value.is_string()) return value.get<std::string>();
  return value.dump();  // true, false, null, a number
}

AdapterOptions OptionsOf(const nlohmann::json& args) {
  AdapterOptions options;
  for (const auto& [key, value] : args.items()) {
    if (key == "dtype" || key == "exclude_key_regex") continue;
    if (key == "n_routed_experts") {
      options["experts"] = TextOf(value);
    } else if (key == "moe_inter_dim") {
      options["expert_width"] = TextOf(value);
    } else {
      options[key] = TextOf(value);
    }
  }
  return options;
}

FamilyCase Parse(const nlohmann::json& json) {
  FamilyCase golden;
  golden.id = json.at("id");
  golden.adapter = json.at("family");
  golden.options = OptionsOf(json.at("args"));
  golden.dtype = ParseDType(json.at("args").at("dtype").get<std::string>()).value();
  golden.exclude_key_regex = json.at("args").value("exclude_key_regex", "");
  golden.input = kFolder + json.at("input").get<std::string>();
  golden.accepts_error = json.value("accept_error", false);
  golden.order_free = json.value("order_free", false);
  if (!json.contains("output")) return golden;
  golden.output = kFolder + json.at("output").get<std::string>();
  if (!json.contains("tensors")) return golden;
  for (const nlohmann::json& tensor : json.at("tensors")) {
    std::vector<TensorSpec>& outputs = golden.outputs.emplace_back();
    for (const nlohmann::json& output : tensor.at("outputs")) {
      outputs.push_back({output.at(0), ParseDType(output.at(1).get<std::string>()).value(), output.at(2).get<Shape>()});
    }
  }
  return golden;
}

}  // namespace

std::vector<FamilyCase> FamilyCases() {
  std::ifstream file(kFolder + "cases.json");
  std::vector<FamilyCase> cases;
  for (const nlohmann::json& json : nlohmann::json::parse(file)) cases.push_back(Parse(json));
  return cases;
}

std::vector<FamilyCase> FromHfCases() {
  std::ifstream file(kFromHfFolder + "cases.json");
  std::vector<FamilyCase> cases;
  for (const nlohmann::json& json : nlohmann::json::parse(file)) {
    cases.push_back(Parse(json));
    cases.back().output = kFromHfFolder + json.at("output").get<std::string>();
  }
  return cases;
}

std::ostream& operator<<(std::ostream& out, const FamilyCase& golden) { return out << golden.id; }

std::string TestName(const FamilyCase& golden) { return absl::StrReplaceAll(golden.id, {{"/", "_"}}); }

}  // namespace refit
