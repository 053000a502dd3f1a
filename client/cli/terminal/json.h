// Makes JSON output for scripts.
#pragma once

#include <google/protobuf/message.h>

#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>

namespace refit::cli {

// Fields keep their proto names. Unset optional fields and empty oneofs are omitted. Integers are numbers; digests
// (fixed64) are 16 hex digits. Enumerators are short and in lower case ("committed", but "BF16"). NaN and infinities
// are strings.
nlohmann::ordered_json ToJson(const google::protobuf::Message& message);

// On one line.
std::string CompactJson(const nlohmann::ordered_json& json);

// Prints to `stream`, on one line if `compact`.
void PrintJson(const nlohmann::ordered_json& json, bool compact = false, std::FILE* stream = stdout);

}  // namespace refit::cli
