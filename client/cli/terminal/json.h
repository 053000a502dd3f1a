// JSON output for scripts.
#pragma once

#include <google/protobuf/message.h>

#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>

namespace refit::cli {

// Fields under their proto names, unset optional ones and empty oneofs left out. Integers are numbers, digests
// (fixed64) 16 hex digits, enumerators short and in lower case ("committed", "BF16"), NaN and infinities strings.
nlohmann::ordered_json ToJson(const google::protobuf::Message& message);

// In one line.
std::string CompactJson(const nlohmann::ordered_json& json);

// On `stream`, one line if `compact`.
void PrintJson(const nlohmann::ordered_json& json, bool compact = false, std::FILE* stream = stdout);

}  // namespace refit::cli
