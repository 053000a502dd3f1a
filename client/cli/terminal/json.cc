#include "client/cli/terminal/json.h"

#include <google/protobuf/descriptor.h>

#include <cmath>
#include <cstdio>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "client/cli/terminal/format.h"

namespace refit::cli {
namespace {

using google::protobuf::EnumValueDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using nlohmann::ordered_json;

ordered_json NumberToJson(double value) {
  if (std::isfinite(value)) return value;
  return FormatNumber(value);
}

// VERSION_STATE_COMMITTED -> "committed"; data types keep their spelling.
std::string EnumToJson(const EnumValueDescriptor& value) {
  std::string name = value.name();
  if (value.type()->name() == "DType") return name.substr(std::string("DTYPE_").size());
  std::string prefix;
  for (const char c : value.type()->name()) {
    if (absl::ascii_isupper(static_cast<unsigned char>(c)) && !prefix.empty()) prefix += '_';
    prefix += absl::ascii_toupper(static_cast<unsigned char>(c));
  }
  if (absl::StartsWith(name, prefix + "_")) name = name.substr(prefix.size() + 1);
  return absl::AsciiStrToLower(name);
}

ordered_json ScalarToJson(const Message& message, const FieldDescriptor* field, int index) {
  const auto* reflection = message.GetReflection();
  const bool repeated = field->is_repeated();
  const auto get = [&](auto single, auto many) { return repeated ? many() : single(); };
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_UINT64: {
      const uint64_t value = get([&] { return reflection->GetUInt64(message, field); },
                                 [&] { return reflection->GetRepeatedUInt64(message, field, index); });
      if (field->type() == FieldDescriptor::TYPE_FIXED64) return FormatDigest(value);
      return value;
    }
    case FieldDescriptor::CPPTYPE_INT64:
      return get([&] { return reflection->GetInt64(message, field); },
                 [&] { return reflection->GetRepeatedInt64(message, field, index); });
    case FieldDescriptor::CPPTYPE_UINT32:
      return get([&] { return reflection->GetUInt32(message, field); },
                 [&] { return reflection->GetRepeatedUInt32(message, field, index); });
    case FieldDescriptor::CPPTYPE_INT32:
      return get([&] { return reflection->GetInt32(message, field); },
                 [&] { return reflection->GetRepeatedInt32(message, field, index); });
    case FieldDescriptor::CPPTYPE_BOOL:
      return get([&] { return reflection->GetBool(message, field); },
                 [&] { return reflection->GetRepeatedBool(message, field, index); });
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return NumberToJson(get([&] { return reflection->GetDouble(message, field); },
                              [&] { return reflection->GetRepeatedDouble(message, field, index); }));
    case FieldDescriptor::CPPTYPE_FLOAT:
      return NumberToJson(get([&] { return reflection->GetFloat(message, field); },
                              [&] { return reflection->GetRepeatedFloat(message, field, index); }));
    case FieldDescriptor::CPPTYPE_ENUM:
      return EnumToJson(*get([&] { return reflection->GetEnum(message, field); },
                             [&] { return reflection->GetRepeatedEnum(message, field, index); }));
    case FieldDescriptor::CPPTYPE_STRING:
      return get([&] { return reflection->GetString(message, field); },
                 [&] { return reflection->GetRepeatedString(message, field, index); });
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return repeated ? ToJson(reflection->GetRepeatedMessage(message, field, index))
                      : ToJson(reflection->GetMessage(message, field));
  }
  return nullptr;
}

}  // namespace

ordered_json ToJson(const Message& message) {
  ordered_json json = ordered_json::object();
  const auto* descriptor = message.GetDescriptor();
  const auto* reflection = message.GetReflection();
  for (int i = 0; i < descriptor->field_count(); ++i) {
    const FieldDescriptor* field = descriptor->field(i);
    if (field->is_repeated()) {
      ordered_json list = ordered_json::array();
      for (int j = 0; j < reflection->FieldSize(message, field); ++j) list.push_back(ScalarToJson(message, field, j));
      json[field->name()] = std::move(list);
    } else if (!field->has_presence() || reflection->HasField(message, field)) {
      json[field->name()] = ScalarToJson(message, field, 0);
    }
  }
  return json;
}

std::string CompactJson(const ordered_json& json) {
  return json.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

void PrintJson(const ordered_json& json, bool compact, std::FILE* stream) {
  const std::string text =
      compact ? CompactJson(json) : json.dump(2, ' ', false, ordered_json::error_handler_t::replace);
  std::fprintf(stream, "%s\n", text.c_str());
  std::fflush(stream);
}

}  // namespace refit::cli
