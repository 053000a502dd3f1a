// What this project makes of safetensors files, for a test that compares it with the reference package. A line on stdin
// names a file to read, and after a tab one to write its tensors to; a line of JSON on stdout answers each:
// {"tensors": {name: [dtype, shape, data as hexadecimal digits]}, "metadata": {...}} or {"error": "..."}.
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "absl/strings/escaping.h"
#include "common/safetensors/file_type.h"
#include "common/safetensors/safetensors.h"

namespace refit {
namespace {

nlohmann::json ToJson(const SafetensorsFile& file) {
  nlohmann::json tensors = nlohmann::json::object();
  for (size_t i = 0; i < file.tensors().size(); ++i) {
    const TensorSpec& spec = file.tensors()[i];
    const absl::Span<const std::byte> data = file.data(i);
    const absl::string_view bytes(reinterpret_cast<const char*>(data.data()), data.size());
    const absl::StatusOr<FileType> type = ToFileType(spec);
    if (!type.ok()) return {{"error", std::string(type.status().message())}};
    tensors[spec.name] = {type->dtype, std::vector<int64_t>(type->shape.begin(), type->shape.end()),
                          absl::BytesToHexString(bytes)};
  }
  return {{"tensors", std::move(tensors)}, {"metadata", file.metadata()}};
}

absl::Status Copy(const SafetensorsFile& file, const std::string& path) {
  auto writer = SafetensorsWriter::Create(path, file.tensors(), file.metadata());
  if (!writer.ok()) return writer.status();
  for (size_t i = 0; i < file.tensors().size(); ++i) {
    if (absl::Status status = (*writer)->WriteAt(i, 0, file.data(i)); !status.ok()) return status;
  }
  return (*writer)->Commit();
}

nlohmann::json Answer(const std::string& in, const std::string& out) {
  const auto file = SafetensorsFile::Open(in);
  if (!file.ok()) return {{"error", std::string(file.status().message())}};
  if (const absl::Status status = Copy(**file, out); !status.ok()) return {{"error", std::string(status.message())}};
  return ToJson(**file);
}

}  // namespace
}  // namespace refit

int main() {
  for (std::string line; std::getline(std::cin, line);) {
    const size_t tab = line.find('\t');
    std::cout << refit::Answer(line.substr(0, tab), line.substr(tab + 1)).dump() << std::endl;
  }
}
